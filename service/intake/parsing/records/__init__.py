"""Files of records, a line of text for each: ``separated`` values, ``json_values``, ``workbook`` sheets, ``mail``."""
