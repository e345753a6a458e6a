"""One line after an answer: what was sent, kept, dropped, and how long it took."""

from llmjobs.chat.agent import Agent
from llmjobs.chat.answering import Reply


def meter(agent: Agent, reply: Reply) -> str:
    """``turn 3 · 214 of 2,048 tokens sent, 180 kept from before · 12 new in 0.8 s, first after 0.05 s``."""
    limit = agent.max_context or agent.backend.limit
    about = "about " if reply.counted == "estimate" else ""
    sent = f"{about}{reply.prompt_tokens:,}{f' of {limit:,}' if limit else ''} tokens sent"
    parts = [f"turn {len(agent.messages) // 2}", sent + _kept(reply)]
    if reply.dropped_tokens:
        parts.append(f"{reply.dropped_tokens:,} dropped by {agent.strategy if agent.history else 'history off'}")
    if reply.side_tokens:
        parts.append(f"{reply.side_tokens:,} for the summary")
    parts.append(f"{reply.new_tokens:,} new in {reply.real_s:.1f} s, first after {reply.ttft_s:.2f} s")
    if reply.finish_reason != "stop":
        parts.append({"length": "cut at the longest length", "interrupted": "stopped"}[reply.finish_reason])
    return " · ".join(parts)


def _kept(reply: Reply) -> str:
    return f", {reply.reused_tokens:,} kept from before" if reply.counted == "tokenizer" else ""
