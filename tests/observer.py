"""A user's addon that looks on: it notes in each flow what was asked and what was answered."""

from mitmproxy import http


class Observer:
    def request(self, flow: http.HTTPFlow) -> None:
        flow.metadata["seen"] = flow.request.path

    def response(self, flow: http.HTTPFlow) -> None:
        flow.metadata["status"] = flow.response.status_code if flow.response else 0


addons = [Observer()]
