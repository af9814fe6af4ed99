"The docs site as it is built, and as a real browser finds it"
import base64, io, json, os, re, shutil, subprocess, sys
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
import pytest
from filelock import FileLock
from fastmix._modidx import d as modidx

pytest.importorskip('smalldocs', reason="the site is built with smalldocs, which needs Python 3.11")

root = Path(__file__).parent.parent
desktop,phone = (1280,900),(390,844)
visible = 'const visible = o => o && o.checkVisibility() && o.getBoundingClientRect().width>0;'

@pytest.fixture(scope='session')
def docs(tmp_path_factory):
    "Built once, by the first of all processes that run tests; or the folder that `FASTMIX_SITE` names"
    if built := os.environ.get('FASTMIX_SITE'): return Path(built)
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get('PYTEST_XDIST_WORKER') else base)/'site'
    with FileLock(f'{shared}.lock'):
        if not shared.exists():
            subprocess.run([sys.executable, 'tools/docs.py'], cwd=root, check=True)
            shutil.copytree(root/'_docs', shared)
    return shared

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

@pytest.fixture(scope='session')
def browser():
    api = pytest.importorskip('playwright.sync_api')
    names = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
    exe = next(filter(None, map(shutil.which, names)), None)
    if exe is None: pytest.skip(f"needs a browser, and none of {', '.join(names)} is installed")
    with api.sync_playwright() as p:
        res = p.chromium.launch(executable_path=exe, args=['--no-sandbox','--disable-gpu'])
        yield res
        res.close()

@pytest.fixture
def open_tab(browser):
    "A function that opens a tab of a size and mode, which notes what goes wrong in `tab.problems`"
    opened = []
    def _open(size=desktop, scheme='light', host=None):
        context = browser.new_context(viewport=dict(width=size[0], height=size[1]), color_scheme=scheme, has_touch=size==phone, is_mobile=size==phone)
        opened.append(context)
        tab = context.new_page()
        tab.set_default_timeout(60_000)
        tab.problems = []
        tab.on('pageerror', lambda o: tab.problems.append(str(o)))
        tab.on('console', lambda o: tab.problems.append(o.text) if o.type in ('error','warning') else None)
        tab.on('requestfailed', lambda o: tab.problems.append(o.url))
        tab.on('response', lambda o: tab.problems.append(f'{o.status} {o.url}') if o.status>=400 else None)
        if host: tab.on('request', lambda o: tab.problems.append(f'elsewhere: {o.url}') if urlsplit(o.url).netloc not in ('', host) else None)
        return tab
    yield _open
    for o in opened: o.close()

class Links(HTMLParser):
    "What a page links to and loads, the ids it has, its text outside code, and its pictures"
    def __init__(self, text):
        super().__init__()
        self.hrefs,self.srcs,self.ids,self.text,self.code,self.images,self.levels = [],[],set(),'',0,[],[]
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {a.get('id'), a.get('name')}
        self.code += tag in ('code', 'pre', 'script', 'style')
        if tag=='img': self.images.append(a)
        if re.fullmatch('h[1-6]', tag): self.levels.append(int(tag[1]))
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
    assert not [o for o in places if o[1] not in parsed[o[0]].ids | parsed['helpers.html'].ids]

def test_headings(parsed):
    "Each page has one title, and no heading skips a level"
    assert not [page for page,o in parsed.items() if o.levels.count(1)!=1 or any(b>a+1 for a,b in zip(o.levels, o.levels[1:]))]

def test_pictures(parsed):
    "Every picture says in words what it shows, in full sentences or nearly so"
    images = [(page,o) for page,p in parsed.items() for o in p.images]
    assert len(images)>50
    assert not [page for page,o in images if len(o.get('alt') or '')<20], "pictures without words"

def test_pictures_are_sharp(parsed):
    "Pictures have 150 dots an inch"
    from PIL import Image
    images = [(page,o) for page,p in parsed.items() for o in p.images]
    blurred = []
    for page,o in images:
        if not o['src'].startswith('data:'): continue
        img = Image.open(io.BytesIO(base64.b64decode(o['src'].partition(',')[2])))
        if img.width/float(o.get('width', img.width)) < 1.55: blurred.append((page,img.size,img.info.get('dpi')))
    assert not blurred, "fewer than 150 dots an inch"

def test_outputs(docs, pages):
    "No output holds a progress bar"
    assert not [o for o in pages if re.search(r'<progress|\d+%\|[█ ]|progress-bar', (docs/o).read_text(encoding='utf-8'))]

def test_llms_txt(docs, pages):
    "`llms.txt` says how to use the package, and has a line for each page, which leads to its Markdown copy"
    text = (docs/'llms.txt').read_text(encoding='utf-8')
    host = modidx['settings']['doc_host']
    base = host and host + modidx['settings']['doc_baseurl'].rstrip('/') + '/'
    found = {o.removeprefix(base):said for o,said in re.findall(r'^- \[.*?\]\((\S+\.html\.md)\): (.+)$', text, flags=re.M)}
    assert found.keys() == {f'{o}.md' for o in pages}
    assert not [o for o in found if not (docs/o).is_file()]
    assert len(set(found.values()))==len(found)
    assert 'pip install' in text and 'from fastmix.all import *' in text

def test_markdown_copies(docs):
    "The Markdown copies hold no HTML of tables, no data of pictures and no directives"
    for o in docs.rglob('*.html.md'): assert not re.search(r'^#\||^:::|<table|<div|<style|data:image|\{=html\}|\{\.\w', o.read_text(encoding='utf-8'), flags=re.M), o.name

def broken(tab, width):
    "Complaints of the browser, pictures that are not there, and what hangs over the side"
    tab.wait_for_timeout(80) # what the page's scripts do a moment after it is loaded
    lost = tab.evaluate("[...document.images].filter(o => !o.naturalWidth || !o.getBoundingClientRect().width).map(o => 'no picture: ' + o.src.slice(0, 80))")
    wide = tab.evaluate('document.scrollingElement.scrollWidth')
    return tab.problems + lost + ([f'{wide} wide'] if wide>width else [])

def unfit(tab, phone):
    "Code and drawings that are wider than their column, words of code that are broken, and on a wide screen tables that scroll"
    return tab.evaluate('(phone) => {' + visible + '''
        const short = (kind, o) => kind + ' ' + o.textContent.trim().slice(0, 60);
        const over = s => [...document.querySelectorAll(s)].filter(o => visible(o) && o.scrollWidth>o.clientWidth+1);
        const broken = o => {
            const range = document.createRange(), walk = document.createTreeWalker(o, NodeFilter.SHOW_TEXT), res = [];
            for (let n; n = walk.nextNode();) for (const m of n.data.matchAll(/[A-Za-z_]\\w*/g)) {
                range.setStart(n, m.index); range.setEnd(n, m.index+m[0].length);
                if (new Set([...range.getClientRects()].map(r => r.top)).size>1) res.push(m[0]); }
            return res; };
        const column = document.querySelector('main').getBoundingClientRect().right+1;
        return [...over('main pre, main pre code').map(o => short('cut', o)),
            ...(phone ? [] : over('main .sd-table, main .cell-output-display').map(o => short('table', o))),
            ...[...document.querySelectorAll('main svg, main img')].filter(o => o.getBoundingClientRect().right>column).map(o => short('drawing', o)),
            ...[...document.querySelectorAll('main pre code, main td, main th')].filter(visible).flatMap(broken).map(o => 'broken ' + o)] }''', phone)

def accused(tab, source):
    "What axe, Deque's checker of accessibility, finds that is not minor. Code is coloured by kinds of words: one of each kind is looked at"
    tab.evaluate(source)
    return tab.evaluate('''async () => {
        const kinds = new Set();
        for (const o of document.querySelectorAll('pre code span[class]')) {
            if (kinds.has(o.className)) o.replaceWith(o.textContent); else kinds.add(o.className); }
        return (await axe.run(document, {resultTypes: ['violations']})).violations.filter(o => o.impact!='minor')
            .map(o => ['axe:', o.impact, o.id, o.nodes.length, o.nodes[0].html.slice(0, 120), o.nodes[0].failureSummary.slice(-120)].join(' ')) }''')

# Each page is looked at in both sizes and in both modes, which are independent of each other
@pytest.mark.parametrize('size,scheme', [(desktop,'light'),(phone,'dark')], ids=['desktop-light','phone-dark'])
def test_pages(open_tab, url, pages, size, scheme):
    "Every page loads without a complaint, everyone can read it, and nothing of it is cut off"
    import axe_playwright_python
    source = (Path(axe_playwright_python.__file__).parent/'axe.min.js').read_text(encoding='utf-8')
    tab,bad = open_tab(size, scheme, urlsplit(url).netloc),{}
    for page in pages:
        tab.problems.clear()
        tab.goto(url+page)
        if found := broken(tab, size[0]) + unfit(tab, size==phone) + accused(tab, source): bad[page] = found
    assert not bad, '\n'.join(f'{k}: {o}' for k,v in bad.items() for o in v)

def test_phone(open_tab, url):
    "On a phone code can be copied without hovering, and the headings of a page are at hand; a key leads past the menus"
    tab = open_tab(phone)
    tab.goto(url+'callback.html')
    assert tab.evaluate("[...document.querySelectorAll('.code-copy-button')].every(o => getComputedStyle(o).opacity==1)")
    assert not tab.locator('#TOC-body').is_visible()
    tab.locator('.toc-phone summary').click()
    tab.locator('#TOC-body a').first.click()
    tab.wait_for_function("document.querySelector(location.hash || 'none')")
    tab.evaluate('document.activeElement.blur()')
    tab.goto(url+'callback.html')
    tab.keyboard.press('Tab')
    assert tab.evaluate('document.activeElement.getAttribute("href")')=='#quarto-document-content'
    assert tab.evaluate('document.activeElement.getBoundingClientRect().top')>=-100

@pytest.mark.parametrize('size', [desktop,phone], ids=['desktop','phone'])
def test_sidebar(open_tab, url, pages, size):
    "The sidebar leads to every page, and can be reached"
    tab = open_tab(size)
    tab.goto(url)
    if size==phone: tab.locator('.quarto-btn-toggle').click()
    links = tab.locator('#quarto-sidebar a.sidebar-link[href]')
    hrefs = links.evaluate_all('o => o.map(o => o.href)')
    assert sorted(o.removeprefix(url) for o in hrefs) == pages
    tab.wait_for_function(f"() => {{ {visible} return [...document.querySelectorAll('#quarto-sidebar a.sidebar-link[href]')].every(visible) }}")
    links.last.click()
    tab.wait_for_url(hrefs[-1])

def search(tab, url, words):
    "Where the first results of a search lead, in order"
    tab.goto(url)
    if tab.locator('.navbar-toggler').is_visible(): tab.locator('.navbar-toggler').click()
    tab.locator('#quarto-search input').fill(words)
    tab.wait_for_selector('.search-result, .search-none')
    return tab.locator('.search-result').evaluate_all(f'o => o.map(o => o.href.slice({len(url)}))')

@pytest.mark.parametrize('size', [desktop,phone], ids=['desktop','phone'])
def test_search_is_shown(open_tab, url, size):
    "A search leads to a page that has what was looked for"
    tab = open_tab(size)
    assert search(tab, url, 'CutMix')
    tab.locator('.search-result').first.click()
    tab.wait_for_url(re.compile(r'.*\w+\.html.*'))
    assert 'CutMix' in tab.locator('main').inner_text()

def test_search_finds_public_names(open_tab, url):
    import fastmix.all as fm
    tab = open_tab()
    names = {k:v.__module__ for k,v in vars(fm).items() if getattr(v, '__module__', '').startswith('fastmix.')}
    assert len(names)>20
    found = {k:[o.split('#')[0] for o in search(tab, url, k)] for k in names}
    wrong = {k:found[k][:5] for k,mod in names.items() if f"{mod.split('.')[-1]}.html" not in found[k][:8]}
    assert not wrong

# What people type, and the page, or one of those, that answers it
asked = {'train loss':['questions.html'], 'install':['index.html'], 'alpha':['reference.html','methods.html','how_it_works.html','which_mix.html'],
    'cite':['cite.html'], 'nan':['questions.html']}

@pytest.mark.parametrize('words', asked)
def test_search_answers(open_tab, url, words):
    found = [o.split('#')[0] for o in search(open_tab(), url, words)]
    assert set(found[:3]) & set(asked[words]), found[:8]

def test_internals_are_not_searched(docs):
    "Internals are on pages of their own, which search leaves out"
    found = {o['href'].split('#')[0] for o in json.loads((docs/'search.json').read_text(encoding='utf-8'))}
    assert {'index.html','callback.html','reference.html'} <= found
    assert not found & {'hooks.html','proof.html','helpers.html','settings.html'}

# ---- the reference

source = re.compile(r'>source</a></p>\s*<h\d id="[^"]*"[^>]*>(.*?)</h\d>(.*?)(?=>source</a></p>|<section|</main>)', flags=re.S)

def entries(docs, page):
    "What the reference documents on a page, in order, with what it says there"
    return [(re.sub('<.*?>|\\\\', '', name),said) for name,said in source.findall((docs/page).read_text(encoding='utf-8'))]

@pytest.fixture(scope='session')
def public():
    "Public names, methods of a Learner among them, with the module of each"
    import fastmix.all as fm
    from fastai.learner import Learner
    own = lambda o: getattr(getattr(o, 'fget', o), '__module__', '').startswith('fastmix.')
    res = {k:v for k,v in vars(fm).items() if own(v)} | {f'Learner.{k}':getattr(v, 'fget', v) for k,v in vars(Learner).items() if own(v)}
    assert len(res)>30
    return {k:v.__module__.removeprefix('fastmix.') for k,v in res.items()}

def test_index_of_names(docs, public):
    "The reference has a line for each public name: a link, what it does, and its module"
    text = (docs/'reference.html').read_text(encoding='utf-8')
    rows = [re.findall('<td>(.*?)</td>', o, flags=re.S) for o in re.findall('<tr>(.*?)</tr>', text, flags=re.S)]
    for name,module in public.items():
        shown = name.replace('Learner.', 'learn.')
        row = next((o for o in rows if o and f'<code>{shown}</code>' in o[0]), None)
        assert row and f'href="{module}.html#' in row[0] and len(row[1])>10, name
        if shown==name: assert f'<code>fastmix.{module}</code>' in row[2], name

def test_shared_arguments(docs):
    "The arguments that mixers share stand in one table, with their defaults and ranges"
    text = (docs/'reference.html').read_text(encoding='utf-8')
    for k in ('alpha','dedup','per_sample','stack_y','pair','p','start','end','inputs','masks','dims','generator'): assert f'<td><code>{k}</code></td>' in text, k
    assert re.search(r'<td><code>p</code></td>\s*<td><code>1.0</code></td>\s*<td>[^<]*\[0, 1\]', text)

def test_entries_are_public(docs, public):
    "Pages of public names document these, methods of theirs, and nothing else; each public name has one entry"
    said = [(page,name) for page in {f'{o}.html' for o in public.values()} for name,_ in entries(docs, page)]
    assert not [o for o in said if o[1] not in public and o[1].split('.')[0] not in public]
    assert not {k for k,v in public.items() if [page for page,name in said if name==k]!=[f'{v}.html']}
    assert ('loss.html','MixUpLoss.__call__') in said

def test_internals_have_pages(docs, public):
    "What public modules keep to themselves is documented too, elsewhere"
    assert len(entries(docs, 'helpers.html'))>5
    assert not {name for name,_ in entries(docs, 'helpers.html')} & public.keys()

def test_raises(docs, public):
    "An entry says what is raised, as the docstring does"
    import fastmix.all as fm
    from fastai.learner import Learner
    n = 0
    for name,module in public.items():
        doc = (getattr(Learner, name[8:]) if name.startswith('Learner.') else getattr(fm, name)).__doc__
        if 'Raises\n' not in doc: continue
        n += 1
        assert any(k==name and '<strong>Raises</strong>' in said for k,said in entries(docs, f'{module}.html')), name
    assert n>20

def test_examples(public):
    "Each public name is used in a visible example, with a visible output, on the page of its module"
    from fastcore.nbio import read_nb
    from test_visible import is_shown, nbs
    lacking = []
    for name,module in public.items():
        path = next(o for o in nbs.glob('[0-9]*.ipynb') if re.fullmatch(rf'\d+[a-z]?_{module}', o.stem))
        used = re.compile(rf"\b{name.replace('Learner.', '[.]')}\b" if '.' not in name else rf"\.{name[8:]}\b")
        if not any(is_shown(c) and c.outputs and used.search(c.source) for c in read_nb(path).cells): lacking.append(name)
    assert not lacking

# ---- one setting: the address of the site

@pytest.mark.parametrize('address', ['','https://example.org/fastmix'])
def test_colab(address, tmp_path, monkeypatch):
    "Tutorials are opened in Colab by a link once the site has an address, and no other page is"
    from types import SimpleNamespace
    monkeypatch.syspath_prepend(str(root/'tools'))
    import present
    from fastcore.nbio import mk_cell, new_nb, read_nb, write_nb
    cfg = SimpleNamespace(doc_url=address, git_url='https://github.com/fastmix/fastmix', branch='main', nbs_path=root/'nbs')
    write_nb(new_nb([present.front('Image', 'Said'), mk_cell('text', cell_type='markdown')]), tmp_path/'image.ipynb')
    present.mend(tmp_path/'image.ipynb', colab=present.colab('tutorials/image.ipynb', cfg))
    text = '\n'.join(o.source for o in read_nb(tmp_path/'image.ipynb').cells)
    link = 'https://colab.research.google.com/github/fastmix/fastmix/blob/main/nbs/tutorials/image.ipynb'
    assert (link in text) == bool(address) == ('pip install' in text)
    assert not present.colab('questions.ipynb', cfg)

def test_issue_templates():
    "The links of the page for new issues lead to files that are here"
    urls = re.findall(r'url: https://github.com/fastmix/fastmix/(?:blob|tree)/main/(\S+)', (root/'.github/ISSUE_TEMPLATE/config.yml').read_text(encoding='utf-8'))
    assert urls and all((root/o).exists() for o in urls)

@pytest.mark.parametrize('html,want', [
    ('<h1>a</h1><h3 id="b">b</h3><h3>c</h3><h2>d</h2><h4>e</h4>', '<h1>a</h1><h2 id="b">b</h2><h2>c</h2><h2>d</h2><h3>e</h3>'),
    ('<h1>a</h1><h2>b</h2><h3>c</h3><h2>d</h2>', '<h1>a</h1><h2>b</h2><h3>c</h3><h2>d</h2>')])
def test_levels_of_headings(html, want, monkeypatch):
    monkeypatch.syspath_prepend(str(root/'tools'))
    from present import level_headings
    assert level_headings(html)==want

def test_long_runs_of_code(monkeypatch):
    "Code without spaces may go on below after a sign; its text stays as it was"
    monkeypatch.syspath_prepend(str(root/'tools'))
    from present import breakable
    short = '<pre><code>a.b(c)</code>'
    assert re.sub('.*', lambda m: breakable(m), short, count=1)==short
    long = "<pre><code><span>frame</span>.groupby(<span>&#x27;row&#x27;</span>).sort_values(0.5)</code>"
    got = re.sub('.*', lambda m: breakable(m), long, count=1)
    assert got.replace('<wbr>', '')==long
    assert got=="<pre><code><span>frame</span>.<wbr>groupby(<wbr><span>&#x27;row&#x27;</span>).<wbr>sort_values(<wbr>0.5)</code>"
