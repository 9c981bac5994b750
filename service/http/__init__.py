"""What all routes share, between the server and the endpoints.

``forwarding`` is the middleware that each request passes first: it finds out where the service is to its clients behind
a proxy. ``gate`` is the next. With keys it finds the right that the route needs (``rights``) and asks for a key that
has it; without keys it looks whether the request is for the service and not from a web page of others (``hosts``). It
limits bodies, and the requests of each key. ``dependencies`` is what endpoints are given and what they check,
``event_stream`` sends answers step by step, and ``problems`` turns every exception into problem+json.
"""
