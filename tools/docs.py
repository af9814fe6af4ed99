"Build the docs site into `_docs/` without Quarto: nbdev's processing, then smalldocs, which reads the same `_quarto.yml`"
import json, limited, os, present, re, shutil, sys
from concurrent.futures.process import BrokenProcessPool
from html import unescape
from os.path import normpath
from pathlib import Path, PurePosixPath
from unittest.mock import patch
import nbdev.serve_drv, yaml
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup, _build_modidx, nbglob
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
try:
    from latex2mathml.converter import convert
    from smalldocs import config, llms, site
    from smalldocs.llms import notebook
except ImportError as e: sys.exit(f"The site needs Python 3.11 or later, and pip install -e '.[docs]': {e}")

reading_order = {'tutorials':'image segmentation text tabular signals inputs video manifold pytorch_loop distributed own_mix recipes',
    'benchmarks':'accuracy speed', '.':'''reference callback fmix resizemix manifold output choice show compare metric stack loop mix loss draw mixer places'''}
start,more = ('index','recipes','how_it_works','which_mix','questions','gallery','methods'),('robust','migration')

def module(page): return re.sub(r'^\d+_|\.ipynb$', '', page)
def is_internal(page): return bool(re.match(r'\d', page)) and module(page) not in present.modules
# What Quarto reads, and smalldocs says that it does not
expected = re.compile('format commonmark|unknown key format-links|.*: output-file')

def sidebar(nbs):
    "The notebooks there are, in reading order, as Quarto's `sidebar.yml`"
    def _key(o):
        order,name = reading_order.get(o.relative_to(nbs).parent.as_posix(), '').split(),re.sub(r'^\d+_', '', o.stem)
        return order.index(name) if name in order else len(order),o
    pages = [o.relative_to(nbs).as_posix() for o in sorted(nbglob(nbs, as_path=True), key=_key)]
    def _some(names): return [f'{o}.ipynb' for o in names if f'{o}.ipynb' in pages]
    def _section(name, contents): return [dict(section=name, contents=contents)] if contents else []
    tutorials,benchmarks = ([o for o in pages if o.startswith(folder)] for folder in ('tutorials/', 'benchmarks/'))
    internals = [o for o in pages if is_internal(o)]
    public = [o for o in pages if (re.match(r'\d', o) or o=='reference.ipynb') and o not in internals]
    top,rest = _some(start),_some(more)
    other = [o for o in pages if o not in [*top, *tutorials, *benchmarks, *internals, *public, *rest]]
    contents = [dict(text='Start here', href=o) if o=='index.ipynb' else o for o in top] + [*_section('Tutorials', tutorials),
        *_section('Reference', public), *_section('Benchmarks', benchmarks), *other, *rest, *_section('Internals', internals)]
    return yaml.dump(dict(website=dict(sidebar=dict(contents=contents))), sort_keys=False)

maths = re.compile(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', flags=re.S)

def mathml(m):
    "TeX to MathML, which browsers show without a script or a font from elsewhere"
    tex = unescape(m[2])
    res = convert(tex, display='inline' if m[1]=='inline' else 'block')
    if '\\' in res or '<mi>&</mi>' in res: sys.exit(f"latex2mathml needs plainer TeX than {tex!r}")
    return f'<span class="math {m[1]}">{res}</span>'

class Site(site.Site):
    "smalldocs with nbdev's addresses, doc links that stay inside the site, and maths that needs no network"
    def discover(self):
        bar = (self.root/'sidebar.yml').read_text(encoding='utf-8')
        return [PurePosixPath(o) for o in re.findall(r'[-:] (\S+\.ipynb)', bar)]

    def read(self, src):
        "Internals are read by who looks for them in the sidebar: a search leads elsewhere"
        page = super().read(src)
        page.out = page.out.with_name(page.front.get('output-file', page.out.name))
        if src.stem==present.helpers or is_internal(src.name): page.meta['search'] = False
        return page

    def find_page(self, target): return super().find_page(target) or next((o for o in self.pages.values() if o.out==target), None)

    def resolve(self, href, page, record=True):
        "Doc links by their full address lead inside the site; what is in the repository but not in `nbs/` is read on GitHub"
        web = self.project.website
        href = re.sub(rf"^{re.escape(web['site-url'])}(/|$)", '/', href)
        path = normpath(page.src.parent/href) if page else ''
        if (m := re.fullmatch(r'/?(?:\w+\.html)?#([\w.]+)', href)) and m[1] in self.moved: href = f'/{present.helpers}.html#{m[1]}'
        if path.startswith('../') and (self.root/path).is_file(): return f"{web['repo-url']}/blob/{web['repo-branch']}/{path[3:]}"
        return super().resolve(href, page, record)

    def render_page(self, page):
        super().render_page(page)
        page.html = maths.sub(mathml, page.html)
        page.env['math'] = False

    def copy_assets(self, nav):
        "Themes without the fonts that they import from another host: the reader's own serve"
        super().copy_assets(nav)
        for o in (self.out/'site_libs').rglob('*.css'):
            o.write_text(re.sub(r'@import url\("?https?:[^)]*\);?', '', o.read_text(encoding='utf-8')), encoding='utf-8')

    def write_search(self):
        "The sections of all pages, and what people look for by other words"
        super().write_search()
        path = self.out/'search.json'
        entries = json.loads(path.read_text(encoding='utf-8'))
        path.write_text(json.dumps([*present.search_terms(entries), *entries], ensure_ascii=False), encoding='utf-8')

    def llms_copy(self, page):
        with patch.object(llms, 'notebook', lambda text, *args: notebook(present.plain_tables(text), *args)): return super().llms_copy(page)

    def write_llms_txt(self):
        "What nbdev's `llms.txt` tells of the package and its modules, how to use it, and a line for each page"
        path = self.out/'llms.txt'
        text = path.read_text(encoding='utf-8').split('\n<!--')[0].rstrip()
        super().write_llms_txt()
        href = re.findall(r'^- \[.*\]\((.*)\)$', path.read_text(encoding='utf-8'), flags=re.M)
        lines = [f"- [{o.title}]({k}): {o.meta.get('description') or o.title}" for o,k in zip(self.pages.values(), href, strict=True)]
        path.write_text('\n'.join([text, '', '## How to use', '', present.how_to_use(get_config().config_path), '', '## Pages', '', *lines, '']), encoding='utf-8')

def process_all():
    "All notebooks as nbdev processes them; returns their folder"
    nbdev.serve_drv.main = limited.process
    try: return proc_nbs(force=True)
    except BrokenProcessPool: sys.exit("The site was not built")

def prepare(cache, cfg):
    "Make the processed notebooks ready, add the pages that no notebook holds, and return the ids of the entries that moved to the page of helpers"
    taken = {}
    for o in sorted(cache.rglob('*.ipynb')):
        path = o.relative_to(cache).as_posix()
        public = o.parent==cache and module(o.name) in present.modules
        if entries := present.mend(o, public, present.colab(path, cfg)): taken[f'{cfg.lib_name}.{module(o.name)}'] = entries
    readers,internal = present.add_pages(cache, cfg.config_path, taken)
    bar = yaml.safe_load((cache/'sidebar.yml').read_text(encoding='utf-8'))
    contents = bar['website']['sidebar']['contents']
    contents[-1:-1] = readers
    contents[-1]['contents'].append(internal)
    (cache/'sidebar.yml').write_text(yaml.dump(bar, sort_keys=False), encoding='utf-8')
    return {present.anchor(present.entry.search(c.source)[1]) for o in taken.values() for c in o}

def rename_md(docs):
    "Give the Markdown copies of pages the names that docstrings and nbdev's `llms.txt` have for them"
    for o in [docs/'llms.txt', *docs.rglob('*.llms.md')]:
        text = o.read_text(encoding='utf-8').replace('.llms.md', '.html.md')
        if o.name=='llms.txt' and not get_config().doc_url: text = text.replace('](/', '](') # relative while the site has no address
        o.write_text(text, encoding='utf-8')
        o.rename(o.with_name(o.name.replace('.llms.md', '.html.md')))

def build():
    "Build the site and return its folder"
    cfg = get_config()
    if cfg.lib_name not in NbdevLookup().entries: sys.exit(f"Links to the docs need an installed {cfg.lib_name}: pip install -e '.[docs]'")
    (cfg.nbs_path/'sidebar.yml').write_text(sidebar(cfg.nbs_path), encoding='utf-8')
    refresh_quarto_yml()
    _build_modidx()
    cache = process_all()
    moved = prepare(cache, cfg)
    project = config.load(cache)
    project.website['llms-txt'] = True
    res = Site(project)
    res.out,res.moved = cfg.doc_path,moved
    shutil.rmtree(res.out, ignore_errors=True)
    res.build()
    for o in res.out.rglob('*.html'): o.write_text(present.mend_html(o.read_text(encoding='utf-8')), encoding='utf-8')
    rename_md(res.out)
    if problems := [o for o in res.warnings if not expected.match(o)]: sys.exit('\n'.join(problems))
    return res.out

if __name__=='__main__':
    os.chdir(Path(__file__).parent.parent)
    print(f"The site is in {build()}")
