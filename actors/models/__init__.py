"""Model servers as actors: ``model("name").chat(...)`` in a workflow, an engine behind it on some host.

Loaded when first used. The shapes are those of the OpenAI chat API (`types`), the port to engines is
`engine`, what stands in a workflow is `stub`, what a host runs is `served`.
"""
