"""AgentForge."""
