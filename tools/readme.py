"Write `README.md` from `nbs/index.ipynb`, as the site's front page shows it. Needs no Quarto"
import re, sys
from base64 import b64decode
from os.path import normpath
from fastcore.nbio import read_nb
from nbdev.config import get_config, nbpath2html
from nbdev.doclinks import NbdevLookup, nbglob

unshown = {'default_exp', 'export', 'exporti'}
fence = re.compile(r'^(```.*?^```)', flags=re.M|re.S)
link = re.compile(r'(\]\(|src=")(?![a-z]+:|#)([^)"\s#]+)(#[^)"\s]*)?')

def pages(cfg): return {nbpath2html(o.relative_to(cfg.nbs_path)).as_posix():o for o in nbglob(cfg.nbs_path, as_path=True)}

def fix_links(md, cfg):
    "Links to notebooks and files, from the root: they work in a clone and on GitHub, which shows notebooks without anchors"
    html = pages(cfg)
    def _fix(m):
        page = html.get(m[2].removeprefix(cfg.doc_url).lstrip('/'))
        path = page.relative_to(cfg.config_path).as_posix() if page else normpath(f'{cfg.nbs_path.name}/{m[2]}')
        if not (cfg.config_path/path).exists(): sys.exit(f"{cfg.readme_nb} links to {m[2]}, but there is no {path}")
        return m[1]+path+('' if path.endswith('.ipynb') else m[3] or '')
    return link.sub(_fix, md)

def markdown(cell, cfg, lookup):
    "A Markdown cell, without Quarto's `:::` lines; code in it stays as it is"
    cell.remove_directives()
    parts = fence.split(lookup.linkify(cell.source.strip()))
    return ''.join(o if i%2 else fix_links(re.sub(r'^:::.*\n?', '', o, flags=re.M), cfg) for i,o in enumerate(parts))

def output(out, name, alt, cfg):
    "One output as Markdown, a picture as a file"
    data = out.get('data', {})
    text = lambda o: ''.join(o).strip('\n')
    if 'text/markdown' in data: return text(data['text/markdown'])
    for kind,ext in (('image/jpeg','jpg'), ('image/png','png')):
        if kind not in data: continue
        if not alt: sys.exit(f"Expected a fig-alt for the picture of cell {name} of {cfg.readme_nb}")
        path = cfg.nbs_path/'images'/f'{name}.{ext}'
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b64decode(text(data[kind])))
        return f"![{alt}]({path.relative_to(cfg.config_path).as_posix()})"
    res = re.sub(r'.*\r', '', text(out.get('text') or data.get('text/plain', '')))
    return '\n'.join('    '+o if o else o for o in res.splitlines())

def code(cell, cfg):
    "A code cell's source and outputs, as its directives would have them"
    d = cell.directives
    if unshown & d.keys() or d.get('include')=='false': return ''
    alt = re.search(r'^#\|\s*fig-alt:\s*"?(.*?)"?\s*$', cell.source, flags=re.M)
    cell.remove_directives()
    src = [] if d.get('echo')=='false' else [f'```python\n{cell.source.strip()}\n```']
    outs = [output(o, f'index-{cell.id}-{i}', alt and alt[1], cfg) for i,o in enumerate(cell.outputs)] if d.get('output')!='false' else []
    return '\n\n'.join(o for o in src+outs if o)

def badges(cfg):
    "What a reader wants to know first; none before there is a site, whose address is `Documentation` in `pyproject.toml`"
    if not cfg.doc_url: return ''
    shield = 'https://img.shields.io/badge/'
    tests,source = f'{cfg.git_url}/actions/workflows/test.yaml',f'{cfg.git_url}/blob/{cfg.branch}'
    row = [('tests', f'{tests}/badge.svg', tests), ('docs', shield+'docs-tutorials%20and%20API-blue', cfg.doc_url),
        (f'Python {cfg.min_python} or later', f'{shield}python-{cfg.min_python}%2B-blue', f'{source}/pyproject.toml'),
        ('licence: Apache-2.0', shield+'licence-Apache--2.0-blue', f'{source}/LICENSE')]
    return ' '.join(f'[![{alt}]({src})]({href})' for alt,src,href in row)

def readme():
    "The text of `README.md`; the pictures in outputs become files beside the notebook's own"
    cfg = get_config()
    lookup = NbdevLookup(incl_libs=cfg.lib_name)
    if cfg.lib_name not in lookup.entries: sys.exit(f"Links to the docs need an installed {cfg.lib_name}: pip install -e '.[dev]'")
    for o in (cfg.nbs_path/'images').glob('index-*'): o.unlink()
    cells = [c for c in read_nb(cfg.nbs_path/cfg.readme_nb).cells if c.source.strip() and 'hide' not in c.directives]
    res = [markdown(c, cfg, lookup) if c.cell_type=='markdown' else code(c, cfg) for c in cells]
    res.insert(1, badges(cfg))
    return '\n\n'.join(o for o in ['<!-- Written by tools/readme.py from nbs/index.ipynb: edit that -->', *res] if o) + '\n'

if __name__=='__main__': (get_config().config_path/'README.md').write_text(readme(), encoding='utf-8')
