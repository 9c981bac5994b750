"""PDF: ``reader`` takes text and places from PDFium page by page, ``page_layout`` puts them in reading order."""
