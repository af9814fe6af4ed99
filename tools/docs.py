"Build the docs site into `_docs/` without Quarto: nbdev's processing, then smalldocs, which reads the same `_quarto.yml`"
import limited, os, re, shutil, sys
from concurrent.futures.process import BrokenProcessPool
from html import unescape
from os.path import normpath
from pathlib import Path, PurePosixPath
import nbdev.serve_drv, yaml
from fastcore.nbio import read_nb, write_nb
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup, _build_modidx, nbglob
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
try:
    from latex2mathml.converter import convert
    from smalldocs import config, site
except ImportError as e: sys.exit(f"The site needs Python 3.11 or later, and pip install -e '.[docs]': {e}")

# By folder, and the modules that users call; the others are internals
reading_order = {'tutorials':'image segmentation text tabular signals inputs video manifold pytorch_loop distributed own_mix recipes',
    'benchmarks':'accuracy speed', '.':'''callback fmix resizemix manifold output choice show compare metric stack loop mix loss draw mixer'''}
start,more = ('index','recipes','how_it_works','which_mix','questions','gallery','methods'),('robust','migration')
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
    api = [o for o in pages if re.match(r'\d', o)]
    public = [o for o in api if re.sub(r'^\d+_|\.ipynb$', '', o) in reading_order['.'].split()]
    top,rest = _some(start),_some(more)
    other = [o for o in pages if o not in [*top, *tutorials, *benchmarks, *api, *rest]]
    contents = [dict(text='Start here', href=o) if o=='index.ipynb' else o for o in top] + [*_section('Tutorials', tutorials),
        *_section('Reference', public), *_section('Benchmarks', benchmarks), *other, *rest, *_section('Internals', [o for o in api if o not in public])]
    return yaml.dump(dict(website=dict(sidebar=dict(contents=contents))), sort_keys=False)

# What tools/help.py adds to docstrings; a page has the arguments' comments already
sections = re.compile(r'\n+(Parameters|Returns|Raises)\n-+\n((?!""").)*"""', flags=re.S)

def mend(path):
    """Drop what smalldocs shows and Jupyter would not: directives of Markdown cells, and what a carriage return in an output overwrites.
    And what a page would say twice"""
    nb = read_nb(path)
    for c in nb.cells:
        if c.cell_type=='markdown': c.source = re.sub(r'\A(#\|.*\n?)+', '', c.source)
        for o in c.get('outputs', []):
            if o.output_type=='stream': o.text = re.sub(r'.*\r', '', ''.join(o.text))
            for k,v in o.get('data', {}).items():
                if k=='text/markdown': o.data[k] = sections.sub('"""', ''.join(v))
    write_nb(nb, path)

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
        page = super().read(src)
        page.out = page.out.with_name(page.front.get('output-file', page.out.name))
        return page

    def find_page(self, target): return super().find_page(target) or next((o for o in self.pages.values() if o.out==target), None)

    def resolve(self, href, page, record=True):
        "Doc links by their full address lead inside the site; what is in the repository but not in `nbs/` is read on GitHub"
        web = self.project.website
        href = re.sub(rf"^{re.escape(web['site-url'])}(/|$)", '/', href)
        path = normpath(page.src.parent/href) if page else ''
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

    def write_llms_txt(self):
        "nbdev's `llms.txt` tells of the modules; smalldocs' list of all pages goes after it"
        path = self.out/'llms.txt'
        modules = path.read_text(encoding='utf-8') if path.exists() else ''
        super().write_llms_txt()
        pages = path.read_text(encoding='utf-8')
        if modules: path.write_text(modules + pages[pages.index('\n## Pages'):], encoding='utf-8')

def process_all():
    "All notebooks as nbdev processes them; returns their folder"
    nbdev.serve_drv.main = limited.process
    try: return proc_nbs(force=True)
    except BrokenProcessPool: sys.exit("The site was not built")

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
    for o in cache.rglob('*.ipynb'): mend(o)
    project = config.load(cache)
    project.website['llms-txt'] = True
    res = Site(project)
    res.out = cfg.doc_path
    shutil.rmtree(res.out, ignore_errors=True)
    res.build()
    rename_md(res.out)
    if problems := [o for o in res.warnings if not expected.match(o)]: sys.exit('\n'.join(problems))
    return res.out

if __name__=='__main__':
    os.chdir(Path(__file__).parent.parent)
    print(f"The site is in {build()}")
