"""What a page shows runs as it is shown: the visible cells of every page, in order, from nothing but what the page shows

Two looks at each page. Quickly, at all of them: each name that a visible cell uses is a builtin, or an earlier visible cell defines or
imports it. Thoroughly: a process forks itself for each page, once the libraries are imported, and runs the visible cells in a namespace
of its own. Pages in `slow` train for longer than a test should: `nbdev-test` runs all of their cells, and the quick look tells that
nothing of what they use is hidden."""
import ast, builtins, importlib, os, subprocess, sys, traceback
from pathlib import Path
from symtable import symtable
import pytest
from fastcore.nbio import read_nb

root = Path(__file__).parent.parent
nbs = root/'nbs'
slow = {*(f'tutorials/{o}.ipynb' for o in 'distributed image manifold recipes segmentation signals tabular text video'.split()),
    '42_compare.ipynb','robust.ipynb'}
limit = 90 # seconds of processor time for a page
unseen = {'hide', 'export', 'exporti', 'exports', 'default_exp'}

def is_shown(cell):
    d = cell.directives
    return cell.cell_type=='code' and not unseen & d.keys() and d.get('echo')!='false' and d.get('eval')!='false' and d.get('include')!='false'

def pages():
    "All pages of the site that are notebooks"
    return sorted(o.relative_to(nbs).as_posix() for o in nbs.rglob('*.ipynb') if not is_private(o.relative_to(nbs)))

def is_private(path): return any(o[0] in '_.' for o in path.parts)

def shown(page):
    cells = [c for c in read_nb(nbs/page).cells if is_shown(c)]
    for c in cells: c.remove_directives()
    return cells

def tables(table):
    yield table
    for o in table.get_children(): yield from tables(o)

def starred(node):
    "What `from module import *` brings"
    if not isinstance(node, ast.ImportFrom) or node.names[0].name!='*': return []
    module = importlib.import_module(node.module)
    return getattr(module, '__all__', [o for o in vars(module) if o[0]!='_'])

def names(source):
    "Names that a cell needs at once, those that its functions need when they are called, and those that it defines"
    top,*inner = tables(symtable(source, 'cell', 'exec'))
    defined = {o.get_name() for o in top.get_symbols() if o.is_assigned() or o.is_imported()}
    defined |= {o.get_name() for t in inner for o in t.get_symbols() if o.is_declared_global() and o.is_assigned()}
    now = {o.get_name() for o in top.get_symbols() if o.is_referenced()}
    late = {o.get_name() for t in inner for o in t.get_symbols() if o.is_referenced() and o.is_global()}
    return now,late,defined.union(*(starred(o) for o in ast.walk(ast.parse(source))))

def unknown(page):
    "Names that the visible cells of `page` use and do not define"
    cells = [names(c.source) for c in shown(page)]
    known,res = {*dir(builtins),'__name__','display'},set()
    anywhere = known.union(*(o for _,_,o in cells))
    for now,late,defined in cells:
        res |= now-known-defined | late-anywhere
        known |= defined
    return res

def run(page):
    "Run what `page` shows from an empty namespace, and return what went wrong"
    from execnb.shell import CaptureShell
    os.chdir((nbs/page).parent)
    shell = CaptureShell(mpl_format=None)
    for i,c in enumerate(shown(page)):
        shell.run(c.source)
        if shell.exc: return f"visible cell {i+1}:\n{c.source}\n{''.join(traceback.format_exception_only(shell.exc))}"

def child(page, write):
    "Run `page` in this process, and end it"
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit+5))
    try: said = run(page)
    except BaseException: said = traceback.format_exc()
    os.write(write, (said or 'ok').encode()[:60000])
    os._exit(0)

def main(names):
    "Run each page in a fork of this process, and print what became of it"
    import fastai.tabular.all, fastai.text.all, fastai.vision.all, fastmix.all, torch # noqa: F401
    torch.set_num_threads(1)
    for page in names:
        read,write = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid==0: child(page, write)
        os.close(write)
        with open(read, 'rb') as f: said = f.read().decode()
        status,used = os.wait4(pid, 0)[1:]
        said = said or f"no answer, exit status {status}: more than {limit} s of processor time?"
        print(f"\x1e{page}\x1f{used.ru_utime:.1f}\x1f{said}", flush=True)

tried = [o for o in pages() if o not in slow]
parts = [tried[::2],tried[1::2]]

@pytest.mark.skipif(not hasattr(os, 'fork'), reason="needs os.fork")
@pytest.mark.parametrize('part', [0,1])
def test_visible_cells_run(part):
    "In two parts, for two processes"
    env = os.environ | dict(OMP_NUM_THREADS='1', MPLBACKEND='agg', PYTHONWARNINGS='ignore', PYTHONPATH=str(root))
    res = subprocess.run([sys.executable, __file__, *parts[part]], cwd=root, env=env, capture_output=True, text=True)
    assert res.returncode==0, res.stderr
    said = {o.split('\x1f')[0]:o.split('\x1f')[2].strip() for o in res.stdout.split('\x1e')[1:]}
    assert said.keys() == set(parts[part])
    assert not (bad := {k:v for k,v in said.items() if v!='ok'}), '\n\n'.join(f'{k}, {v}' for k,v in bad.items())

@pytest.mark.parametrize('page', pages())
def test_nothing_used_is_hidden(page): assert not unknown(page)

def test_most_pages_are_tried():
    assert slow <= set(pages())
    assert len(tried)>=3*len(slow)

def write(path, *sources):
    from fastcore.nbio import mk_cell, new_nb, write_nb
    write_nb(new_nb([mk_cell(o) for o in sources]), path)

def test_a_hidden_import_is_noticed(monkeypatch, tmp_path):
    "A page whose import is hidden stops, and both looks say why"
    write(tmp_path/'page.ipynb', '#| hide\nimport math', 'math.pi')
    monkeypatch.setattr(sys.modules[__name__], 'nbs', tmp_path)
    here = os.getcwd()
    try: assert "name 'math' is not defined" in run('page.ipynb')
    finally: os.chdir(here)
    assert unknown('page.ipynb')=={'math'}

@pytest.mark.parametrize('sources,want', [
    (['a = 1', 'a'], set()), (['a', 'a = 1'], {'a'}), (['def f(): return b', 'b = 1', 'f()'], set()), (['def f(): return b', 'f()'], {'b'}),
    (['[c for c in range(3)]', 'c'], {'c'}), (['from math import *', 'pi'], set()), (['class A:\n    x = 1\n    y = x'], set()),
    (['for i in range(3): pass', 'i'], set()), (['lambda q: q+r'], {'r'}), (['import os.path as p', 'p, os'], {'os'})])
def test_names_are_followed(sources, want, monkeypatch, tmp_path):
    write(tmp_path/'page.ipynb', *sources)
    monkeypatch.setattr(sys.modules[__name__], 'nbs', tmp_path)
    assert unknown('page.ipynb')==want

if __name__=='__main__': main(sys.argv[1:])
