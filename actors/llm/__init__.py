"""Agents that are a model with tools: ``callboard.LlmAgent``.

Loaded when first used. What is declared is `agent`, what a host runs is `loop`; `tools` are what the model
may call, `answers` what it is to give, `history` what it remembers.
"""
