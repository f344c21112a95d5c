"""Learns from people's answers on served rows: whether the promise still holds, and what to promise next."""
