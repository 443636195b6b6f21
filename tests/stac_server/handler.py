"""Answers of the STAC API and of the store of files."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs, urlsplit

from shapely.geometry import box

from stac_server.files import file_of
from stac_server.flavours import HELD, copies, item, moment, scenes

if TYPE_CHECKING:
    from stac_server.__main__ import Place

CONFORMS = [
    "https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/collections", "https://api.stacspec.org/v1.0.0/item-search#query",
]  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    places: dict[str, Place]
    open_place: object

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._route("HEAD", {})

    def do_GET(self) -> None:
        self._route("GET", {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._route("POST", json.loads(body or b"{}"))

    def _route(self, method: str, body: dict) -> None:
        parts = urlsplit(self.path)
        first, *rest = parts.path.strip("/").split("/")
        if first == "_new":
            return self._json({"place": self.open_place(body)})
        if first == "_control":
            return self._json(self.places[rest[0]].control(body))
        if first not in self.places:
            return self._send(404, b"no such site", "text/plain")
        place = self.places[first]
        with place.under_way():
            time.sleep(place.quirks.latency_s)
            self._answer(place, method, rest, parts, body)

    def _answer(self, place: Place, method: str, rest: list[str], parts: SplitResult, body: dict) -> None:
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        route = self._name(method, rest)
        fault = place.asked(route, "/".join(rest), dict(self.headers))
        if fault is not None and fault["kind"] not in ("truncate", "corrupt"):
            return self._fail(place, fault)
        if not self._authorised(place):
            return self._send(401, b"no key", "text/plain")
        if route == "token":
            return self._json(place.token())
        if rest[0] == "static":
            return self._static(place, rest[1:])
        if rest[0] == "files":
            return self._file(place, method, rest[1:], query, fault)
        return self._api(place, rest, body, query)

    def _authorised(self, place: Place) -> bool:
        """Whether the request has the headers that the site wants."""
        return all(self.headers.get(name) == value for name, value in place.quirks.headers.items())

    def _static(self, place: Place, rest: list[str]) -> None:
        """The same catalogue as files that link to each other by relative links."""
        names = HELD[place.quirks.flavour]
        if rest == ["catalog.json"]:
            links = [{"rel": "child", "href": f"./{name}/collection.json"} for name in names]
            told = {"type": "Catalog", "id": "static", "title": "Loopback of files", "links": links}
        elif rest[1] == "collection.json":
            links = [{"rel": "item", "href": f"./{s.index}.json"} for s in scenes(place.quirks, rest[0])]
            told = {"type": "Collection", "id": rest[0], "links": links}
        else:
            index = rest[1].removesuffix(".json")
            scene = next(one for one in scenes(place.quirks, rest[0]) if one.index == index)
            told = item(place.quirks, rest[0], scene, "..", "../../files") | {"links": []}
        self._json({"stac_version": "1.0.0", **told})

    def _name(self, method: str, rest: list[str]) -> str:
        if rest[0] == "files":
            return {"HEAD": "head", "GET": "range" if self.headers.get("Range") else "whole"}[method]
        if rest[0] in ("sas", "static"):
            return {"sas": "token"}.get(rest[0], rest[0])
        if "collections" in rest:
            return "collections"
        return {"search": "search", "token": "token"}.get(rest[-1], "landing")

    def _fail(self, place: Place, fault: dict) -> None:
        self.close_connection = True
        if fault["kind"] == "hang":
            place.hang(fault["seconds"])
        elif fault["kind"] == "slow":  # never silent for long, and never done
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            for _ in range(fault["seconds"] * 10):
                self.wfile.write(b" ")
                time.sleep(0.1)
        elif fault["kind"] == "redirect":
            self._send(307, b"", "text/plain", {"Location": fault["to"]})
        elif fault["kind"] == "login":  # what a network wants to be paid for says to everything
            self._send(200, b"<html>please log in</html>", "text/html")
        elif fault["kind"] == "status":
            headers = {"Retry-After": str(fault["retry_after"])} if "retry_after" in fault else {}
            self._send(fault["status"], fault.get("text", "no").encode(), "text/plain", headers)
        # a reset says nothing at all

    def _json(self, answer: dict, status: int = 200) -> None:
        self._send(status, json.dumps(answer).encode(), "application/geo+json")

    def _send(self, status: int, body: bytes, kind: str, headers: dict | None = None, promised: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(promised or len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _api(self, place: Place, rest: list[str], body: dict, query: dict) -> None:
        base = f"http://{self.headers['Host']}/{place.name}/api"
        if rest[-1] == "search":
            return self._json(self._search(place, base, body or query))
        if "collections" in rest:
            found = [{"type": "Collection", "id": name} for name in HELD[place.quirks.flavour]]
            wanted = rest[rest.index("collections") + 1 :]
            if not wanted:
                return self._json({"collections": found, "links": []})
            known = [one for one in found if one["id"] == wanted[0]]
            return self._json(known[0] if known else {"code": "NotFound"}, 200 if known else 404)
        links = [
            {"rel": "self", "href": base}, {"rel": "root", "href": base},
            {"rel": "search", "href": f"{base}/search", "method": "GET", "type": "application/geo+json"},
            {"rel": "search", "href": f"{base}/search", "method": "POST", "type": "application/geo+json"},
        ]  # fmt: skip
        title = f"Loopback {place.quirks.flavour}"
        self._json({"type": "Catalog", "stac_version": "1.0.0", "id": "loopback", "title": title,
                    "description": "for tests", "conformsTo": CONFORMS, "links": links})  # fmt: skip

    def _search(self, place: Place, base: str, asked: dict) -> dict:
        collections = asked["collections"]
        names = collections.split(",") if isinstance(collections, str) else collections
        bbox = asked["bbox"].split(",") if isinstance(asked["bbox"], str) else asked["bbox"]
        west, south, east, north = (float(one) for one in bbox)
        area = box(west, south, east, north)
        span = [moment(text) for text in asked["datetime"].split("/")] if asked.get("datetime") else None
        found = []
        files = base.removesuffix("/api") + "/files"
        for name in names:
            held = scenes(place.quirks, name) if name in HELD[place.quirks.flavour] else []
            for scene in held:
                if scene.footprint.shape.intersects(area) and (span is None or span[0] <= scene.when <= span[1]):
                    found += copies(place.quirks, item(place.quirks, name, scene, base, files))
        limit = min(int(asked.get("limit", 10)), place.quirks.page)
        start = int(asked.get("token", 0))
        page = found[start : start + limit]
        links = []
        if start + limit < len(found):
            links.append({"rel": "next", "href": f"{base}/search", "method": "POST", "merge": False,
                          "body": {**asked, "token": start + limit}})  # fmt: skip
        return {"type": "FeatureCollection", "features": page, "links": links}

    def _file(self, place: Place, method: str, rest: list[str], query: dict, fault: dict | None) -> None:
        if place.quirks.signed and not place.good(query.get("sig", "")):
            return self._send(403, b"AuthenticationFailed", "text/plain")
        collection, index, name = rest
        data = None if "gone" in query else file_of(place.quirks, collection, index, name.removesuffix(".tif"))
        if data is None:
            return self._send(404, b"BlobNotFound", "text/plain")
        headers = {"Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if method == "HEAD" or asked is None:
            return self._send(200, data if method == "GET" else b"", "image/tiff", headers, len(data))
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(len(data) - 1, int(last or len(data) - 1))
        if start >= len(data):
            return self._send(416, b"", "text/plain", {"Content-Range": f"bytes */{len(data)}"})
        body = data[start : stop + 1]
        headers["Content-Range"] = f"bytes {start}-{stop}/{len(data)}"
        if fault is not None and fault["kind"] == "corrupt":
            return self._send(206, bytes(len(body)), "image/tiff", headers)
        if fault is not None:
            self.close_connection = True
            return self._send(206, body[: len(body) // 2], "image/tiff", headers, len(body))
        place.sent(len(body))
        return self._send(206, body, "image/tiff", headers)
