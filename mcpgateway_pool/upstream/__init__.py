"""Real sessions over the MCP SDK: the owner task, the HTTP clients, the watch on requests, health checks."""
