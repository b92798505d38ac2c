"""Serving a model over HTTP: OpenAI's protocol for programs, a chat page for people.

Entry points: `app.create_app` makes the ASGI application, `server.serve` runs it on a socket. One thread owns
the model (worker.py); everything else only moves bytes.
"""
