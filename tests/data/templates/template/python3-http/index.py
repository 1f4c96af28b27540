import json
from http.server import BaseHTTPRequestHandler, HTTPServer

from function import handler


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(handler.handle(None, None)).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)


HTTPServer(("0.0.0.0", 8080), Server).serve_forever()
