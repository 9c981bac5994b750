"""Call the MCP tools as a language model's host does: search, then read around the first passage.

python examples/clients/mcp_tools.py "Where was the lantern before the garden?"
"""

import asyncio
import os
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

URL = os.environ.get("QRAG_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("QRAG_API_KEY", "")


async def main() -> str | None:
    """Print what the tools return; returns why there is nothing to print."""
    headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(f"{URL}/mcp", http_client=http)) as client,
    ):
        print([tool.name for tool in (await client.list_tools()).tools])
        found = await client.call_tool("search", {"query": " ".join(sys.argv[1:])})
        if found.is_error:
            return found.content[0].text
        passages = found.structured_content["results"]
        if not passages:
            return "Nothing was found."
        for passage in passages:
            print(passage["id"], passage["text"])
        fetched = await client.call_tool("fetch", {"id": passages[0]["id"]})
        print(fetched.structured_content["text"][:500])
        return None


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
