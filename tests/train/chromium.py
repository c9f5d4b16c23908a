"""A headless Chromium, spoken to through two pipes by its DevTools protocol; no driver to install."""
import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
FOUND = next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """Of an open page, `events` holds what the protocol told: console messages, exceptions, requests, log entries."""

    def __init__(self, to, of):
        self.to, self.of, self.rest, self.count, self.session, self.events = to, of, b'', 0, None, []

    def call(self, method, **params):
        self.count += 1
        message = {'id': self.count, 'method': method, 'params': params}
        if self.session:
            message['sessionId'] = self.session
        os.write(self.to, json.dumps(message).encode() + b'\0')
        while True:
            told = self._read()
            if told.get('id') == self.count:
                assert 'error' not in told, told
                return told['result']

    def _read(self):
        while b'\0' not in self.rest:
            told = os.read(self.of, 1 << 20)
            assert told, 'Chromium has ended'
            self.rest += told
        told, _, self.rest = self.rest.partition(b'\0')
        told = json.loads(told)
        if 'method' in told:
            self.events.append(told)
        return told

    def open(self, url, width, height, dark=False):
        self.session = None
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self.session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(f'{domain}.enable')
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=True)
        self.call('Emulation.setEmulatedMedia', features=[
            {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}])
        self.events.clear()
        self.call('Page.navigate', url=url)
        while not any(event['method'] == 'Page.loadEventFired' for event in self.events):
            self._read()

    def evaluate(self, expression):
        """The value of this JavaScript expression, once its promise is kept."""
        told = self.call('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in told, told
        return told['result'].get('value')

    def of_method(self, *methods):
        return [event['params'] for event in self.events if event['method'] in methods]

    def screenshot(self, file):
        told = self.call('Page.captureScreenshot', captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(told['data']))


@contextlib.contextmanager
def started():
    """One Chromium, which reads commands from descriptor 3 and answers on 4."""
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (*os.pipe(), *os.pipe())]
    commands, to, of, answers = ends

    def place():
        os.dup2(commands, 3)
        os.dup2(answers, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [FOUND, '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
             '--remote-debugging-pipe', f'--user-data-dir={profile}', 'about:blank'],
            preexec_fn=place, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(answers)
        try:
            chromium = Chromium(to, of)
            yield chromium
            chromium.session = None
            chromium.call('Browser.close')
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            os.close(to)
            os.close(of)
