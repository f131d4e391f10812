"""The addon of a user's that sees flows: it notes what each request was answered."""

from mitmproxy import http


class Observer:
    def request(self, flow: http.HTTPFlow) -> None:
        flow.metadata["seen"] = flow.request.path

    def response(self, flow: http.HTTPFlow) -> None:
        flow.metadata["status"] = flow.response.status_code if flow.response else 0


addons = [Observer()]
