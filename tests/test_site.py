"The docs site as it is built, and as a real browser finds it"
import json, re, shutil, subprocess, sys, time
from functools import partial
from html.parser import HTMLParser
from http.client import HTTPConnection
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
import pytest
from fastmix._modidx import d as modidx

pytest.importorskip('smalldocs', reason="the site is built with smalldocs, which needs Python 3.11")
connect = pytest.importorskip('websockets.sync.client').connect

root = Path(__file__).parent.parent
desktop,phone = (1280,900),(390,844)
flags = '''--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update
--disable-sync --remote-debugging-port=0'''.split()
visible = 'const visible = o => o && o.checkVisibility() && o.getBoundingClientRect().width>0;'

@pytest.fixture(scope='session')
def docs():
    subprocess.run([sys.executable, 'tools/docs.py'], cwd=root, check=True)
    return root/'_docs'

@pytest.fixture(scope='session')
def pages(docs): return sorted(o.relative_to(docs).as_posix() for o in docs.rglob('*.html'))

class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@pytest.fixture(scope='session')
def url(docs, tmp_path_factory):
    "The site under a folder of its host, as GitHub Pages has it"
    top = tmp_path_factory.mktemp('www')
    (top/'fastmix').symlink_to(docs)
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=top)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/fastmix/'
        server.shutdown()

class Tab:
    "A page of a browser, driven over the DevTools protocol"
    def __init__(self, ws):
        self.ws,self.n,self.events = ws,0,[]
        for o in ('Page', 'Runtime', 'Log', 'Network'): self.call(f'{o}.enable')

    def _next(self):
        msg = json.loads(self.ws.recv(timeout=30))
        if 'id' not in msg: self.events.append(msg)
        return msg

    def call(self, method, **params):
        self.n += 1
        self.ws.send(json.dumps(dict(id=self.n, method=method, params=params)))
        while (msg := self._next()).get('id')!=self.n: pass
        if 'error' in msg: raise RuntimeError(f"{method}: {msg['error']}")
        return msg['result']

    def wait(self, method):
        while not any(o['method']==method for o in self.events): self._next()

    def size(self, size):
        width,height = size
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=size==phone)

    def scheme(self, value): self.call('Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value=value)])

    def goto(self, url):
        self.events.clear()
        self.call('Page.navigate', url=url)
        self.wait('Page.loadEventFired')
        self.js('new Promise(o => setTimeout(o, 80))') # what the page's scripts do a moment after it is loaded

    def js(self, code):
        res = self.call('Runtime.evaluate', expression=code, awaitPromise=True, returnByValue=True)
        if 'exceptionDetails' in res: raise RuntimeError(res['exceptionDetails'])
        return res['result'].get('value')

    def follow(self, link):
        "Click `link`, and say where it leads"
        self.events.clear()
        self.js(f'setTimeout(() => {link}.click())')
        self.wait('Page.loadEventFired')
        return self.js('location.href')

    def until(self, code, secs=30):
        "The first truthy value of `code`"
        end = time.time()+secs
        while not (res := self.js(code)):
            if time.time()>end: raise TimeoutError(f"{secs}s and still not: {code}")
            time.sleep(0.05)
        return res

    def problems(self, host):
        "Console errors and failed requests, and requests to any other host"
        for o in self.events:
            kind,p = o['method'],o['params']
            if kind=='Runtime.exceptionThrown': yield p['exceptionDetails']
            if kind=='Runtime.consoleAPICalled' and p['type'] in ('error', 'warning'): yield p['args']
            if kind=='Log.entryAdded' and p['entry']['level'] in ('error', 'warning'): yield p['entry']
            if kind=='Network.loadingFailed': yield p
            if kind=='Network.responseReceived' and p['response']['status']>=400: yield p['response']['url']
            if kind=='Network.requestWillBeSent' and urlsplit(p['request']['url']).netloc not in ('', host): yield p['request']['url']

@pytest.fixture(scope='session')
def tab(tmp_path_factory):
    names = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
    exe = next(filter(None, map(shutil.which, names)), None)
    if exe is None: pytest.skip(f"needs a browser, and none of {', '.join(names)} is installed")
    profile = tmp_path_factory.mktemp('profile')
    browser = subprocess.Popen([exe, *flags, f'--user-data-dir={profile}', 'about:blank'], stderr=subprocess.DEVNULL)
    try:
        port = profile/'DevToolsActivePort'
        end = time.time()+60
        while not (port.exists() and '\n' in port.read_text()):
            if browser.poll() is not None or time.time()>end: raise RuntimeError(f"{exe} did not start: exit status {browser.returncode}")
            time.sleep(0.05)
        http = HTTPConnection('127.0.0.1', int(port.read_text().split()[0]), timeout=30)
        http.request('GET', '/json')
        target = next(o for o in json.load(http.getresponse()) if o['type']=='page')
        with connect(target['webSocketDebuggerUrl'], max_size=None, proxy=None) as ws: yield Tab(ws)
    finally:
        browser.terminate()
        browser.wait(30)

class Links(HTMLParser):
    "What a page links to and loads, the ids it has, and its text outside code"
    def __init__(self, text):
        super().__init__()
        self.hrefs,self.srcs,self.ids,self.text,self.code = [],[],set(),'',0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {a.get('id'), a.get('name')}
        self.code += tag in ('code', 'pre', 'script', 'style')
        if tag=='a' and a.get('href'): self.hrefs.append(a['href'])
        if url := a.get('src') or (tag=='link' and a.get('href')): self.srcs.append(url)

    def handle_endtag(self, tag): self.code -= tag in ('code', 'pre', 'script', 'style')
    def handle_data(self, data): self.text += '' if self.code else data

@pytest.fixture(scope='session')
def parsed(docs, pages): return {o:Links((docs/o).read_text(encoding='utf-8')) for o in pages}

def test_links(docs, parsed):
    "Every link inside the site leads to something, and no page loads anything from elsewhere"
    broken = []
    for page,o in parsed.items():
        for href in o.hrefs + o.srcs:
            if re.match(r'(https?:)?//', href): broken += [(page, href)] if href in o.srcs else []
            elif not re.match('[a-z]+:', href):
                path,frag = urldefrag(unquote(urljoin(page, href)))
                if path.endswith('/') or not path: path += 'index.html'
                if not (docs/path).is_file() or frag and path in parsed and frag not in parsed[path].ids: broken.append((page, href))
    assert not broken

def test_prose(parsed):
    for page,o in parsed.items(): assert not re.search(r'#\||:::|\]\(|\$\$|\\\(|\\\[', o.text), f"raw markup on {page}"

def test_doc_links(parsed):
    "Every exported name has its place on a page"
    syms = [(k.removeprefix(f'{mod}.'),v[0]) for mod,d in modidx['syms'].items() for k,v in d.items()]
    places = [o.split('#') for k,o in syms if re.fullmatch(r'[a-zA-Z]\w*', k)]
    assert places
    assert not [o for o in places if o[1] not in parsed[o[0]].ids]

def test_llms_txt(docs, pages):
    "`llms.txt` and the docstrings lead to a Markdown copy of each page"
    text = (docs/'llms.txt').read_text(encoding='utf-8')
    host = modidx['settings']['doc_host']
    base = host and host + modidx['settings']['doc_baseurl'].rstrip('/') + '/'
    found = {o.removeprefix(base) for o in re.findall(r'\((\S+\.html\.md)\)', text)}
    assert found == {f'{o}.md' for o in pages}
    assert not [o for o in found if not (docs/o).is_file()]

@pytest.mark.parametrize('size', [desktop,phone], ids=['desktop','phone'])
def test_pages(tab, url, pages, size):
    "Every page loads without a complaint, its pictures are there, and nothing hangs over the side"
    tab.size(size)
    host,bad = urlsplit(url).netloc,{}
    for page in pages:
        tab.goto(url+page)
        bad[page] = [*tab.problems(host), *tab.js('''[...document.images].filter(o => !o.naturalWidth || !o.getBoundingClientRect().width)
            .map(o => 'no picture: ' + o.src.slice(0, 80))''')]
        if (width := tab.js('document.scrollingElement.scrollWidth')) > size[0]: bad[page].append(f'{width} wide')
    assert not {k:v for k,v in bad.items() if v}

@pytest.mark.parametrize('scheme', ['light','dark'])
def test_contrast(tab, url, pages, scheme):
    "Text stands out from what is behind it, 3:1 at least"
    tab.size(desktop)
    tab.scheme(scheme)
    bad = {}
    for page in pages:
        tab.goto(url+page)
        bad[page] = tab.js(visible + '''
            const ctx = Object.assign(document.createElement('canvas'), {width:1, height:1}).getContext('2d', {willReadFrequently:true});
            const rgba = s => {
                ctx.clearRect(0,0,1,1); ctx.fillStyle = s; ctx.fillRect(0,0,1,1);
                return [...ctx.getImageData(0,0,1,1).data]; };
            const light = c => [.2126,.7152,.0722].reduce((t,w,i) => t + w*(c[i]<11 ? c[i]/3295 : ((c[i]/255+.055)/1.055)**2.4), .05);
            const back = o => {
                for (; o; o = o.parentElement) { const c = rgba(getComputedStyle(o).backgroundColor); if (c[3]>127) return c; }
                return [255,255,255]; };
            const ratio = o => {
                const a = light(rgba(getComputedStyle(o).color)), b = light(back(o));
                return Math.max(a,b)/Math.min(a,b); };
            [...document.querySelectorAll('body *')].filter(o => [...o.childNodes].some(n => n.nodeType==3 && n.data.trim()))
                .filter(o => visible(o) && ratio(o)<3).map(o => ratio(o).toFixed(1) + ' ' + o.outerHTML.slice(0, 150))''')
    tab.scheme('')
    assert not {k:v for k,v in bad.items() if v}

@pytest.mark.parametrize('size', [desktop,phone], ids=['desktop','phone'])
def test_sidebar(tab, url, pages, size):
    "The sidebar leads to every page, and can be reached"
    tab.size(size)
    tab.goto(url)
    if size==phone: tab.js("document.querySelector('.quarto-btn-toggle').click()")
    links = "[...document.querySelectorAll('#quarto-sidebar a.sidebar-link[href]')]"
    hrefs = tab.js(f'{links}.map(o => o.href)')
    assert sorted(o.removeprefix(url) for o in hrefs) == pages
    tab.until(f'(() => {{ {visible} return {links}.every(visible) }})()')
    assert tab.follow(f'{links}.at(-1)') == hrefs[-1]

@pytest.mark.parametrize('size', [desktop,phone], ids=['desktop','phone'])
def test_search(tab, url, size):
    "Search finds each public class, and leads to the page that tells of it"
    tab.size(size)
    tab.goto(url)
    names = {k.split('.')[-1]:v[0] for mod in modidx['syms'].values() for k,v in mod.items() if re.fullmatch(r'[A-Z]\w+', k.split('.')[-1])}
    if size==phone: tab.js("document.querySelector('.navbar-toggler').click()")
    for name,page in names.items():
        tab.until('(() => { ' + visible + "return visible(document.querySelector('#quarto-search input')) })()")
        tab.js(f'''(() => {{ const o = document.querySelector('#quarto-search input'); o.focus(); o.value = {json.dumps(name)};
            o.dispatchEvent(new Event('input')) }})()''')
        found = f"[...document.querySelectorAll('.search-result')].find(o => o.href.startsWith({json.dumps(url+page.split('#')[0])}))"
        tab.until(f'!!{found}')
    assert tab.follow(found).startswith(url+page.split('#')[0])
    assert name in tab.js("document.querySelector('main').innerText")
