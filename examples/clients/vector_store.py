"""Search a collection with OpenAI's own client: `pip install openai`, and the collection's name is the vector store's.

python examples/clients/vector_store.py "Where was the lantern before the garden?"
"""

import os
import sys

from openai import OpenAI

URL = os.environ.get("QRAG_URL", "http://127.0.0.1:8000")


def main() -> None:
    """Print the results, best score first."""
    client = OpenAI(base_url=f"{URL}/v1", api_key=os.environ.get("QRAG_API_KEY", "none"))
    for result in client.vector_stores.search("default", query=" ".join(sys.argv[1:]), max_num_results=3):
        print(f"{result.score:.2f} {result.filename}: {result.content[0].text}")


if __name__ == "__main__":
    main()
