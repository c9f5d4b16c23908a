"""A Hub on this machine: as much of the Hub's protocol as pushing and loading a model of timm takes.

Files are kept in memory, by repository. It takes every file as a part of the commit; the real Hub has large files sent
another way, which is huggingface_hub's affair.
"""
import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Hub(ThreadingHTTPServer):
    """Serves until its end as a context manager; `repositories` maps OWNER/NAME to {file: bytes}."""

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.repositories, self.url = {}, f'http://127.0.0.1:{self.server_address[1]}'

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, status, body=b'', **headers):
        self.send_response(status)
        for name, value in {'Content-Length': len(body), **headers}.items():
            self.send_header(name.replace('_', '-'), str(value))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def do_GET(self):
        """A file: /OWNER/NAME/resolve/REVISION/FILE."""
        owner, name, _, _, file = urlsplit(self.path).path[1:].split('/', 4)
        content = self.server.repositories.get(f'{owner}/{name}', {}).get(file)
        if content is None:
            self.answer(404, X_Error_Code='EntryNotFound')
        else:
            digest = hashlib.sha1(content).hexdigest()
            self.answer(200, content, ETag=f'"{digest}"', X_Repo_Commit=40 * '0')

    do_HEAD = do_GET

    def do_POST(self):
        body, path = self.rfile.read(int(self.headers['Content-Length'])), urlsplit(self.path).path
        if self.headers['Authorization'] != 'Bearer hf_secret':
            self.answer(401)
        else:
            self.answer(200, json.dumps(self.posted(path, body)).encode(), Content_Type='application/json')

    def posted(self, path, body):
        if path == '/api/validate-yaml':
            return {'errors': [], 'warnings': []}
        if path == '/api/repos/create':
            repository = '{organization}/{name}'.format(**json.loads(body))
            self.server.repositories.setdefault(repository, {})
            return {'url': f'{self.server.url}/{repository}'}
        repository, action, _ = path.removeprefix('/api/models/').rsplit('/', 2)
        if action == 'preupload':
            return {'files': [{'path': file['path'], 'uploadMode': 'regular', 'shouldIgnore': False}
                              for file in json.loads(body)['files']]}
        assert action == 'commit'
        for line in map(json.loads, body.splitlines()):
            if line['key'] == 'file':
                self.server.repositories[repository][line['value']['path']] = base64.b64decode(line['value']['content'])
        return {'commitUrl': f'{self.server.url}/{repository}/commit/{40 * "0"}', 'commitOid': 40 * '0'}
