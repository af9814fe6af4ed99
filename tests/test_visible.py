"""What a page shows runs as it is shown: the visible cells of every guide and tutorial, in order, each page in a process and a namespace
of its own

A process forks itself for each page, once the libraries are imported: an import of them for each page would take minutes. Left out are
the pages named in `slow`, whose visible cells take 20 seconds or more each, and the reference, whose imports are in its exported cells."""
import os, subprocess, sys, traceback
from pathlib import Path
import pytest
from fastcore.nbio import read_nb

root = Path(__file__).parent.parent
nbs = root/'nbs'
slow = {'robust.ipynb', *(f'tutorials/{o}.ipynb' for o in 'distributed image manifold recipes segmentation signals tabular text video'.split())}
limit = 90 # seconds of processor time for a page
unseen = {'hide', 'export', 'exporti', 'exports', 'default_exp'}

def is_shown(cell):
    d = cell.directives
    return cell.cell_type=='code' and not unseen & d.keys() and d.get('echo')!='false' and d.get('eval')!='false' and d.get('include')!='false'

def pages(): return sorted(o.relative_to(nbs).as_posix() for p in ('[a-z]*.ipynb','tutorials/*.ipynb') for o in nbs.glob(p))

def shown(page): return [c for c in read_nb(nbs/page).cells if is_shown(c)]

def run(page):
    "Run what `page` shows from an empty namespace, and return what went wrong"
    from execnb.shell import CaptureShell
    os.chdir((nbs/page).parent)
    shell = CaptureShell(mpl_format=None)
    for i,c in enumerate(shown(page)):
        c.remove_directives()
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

@pytest.fixture(scope='module')
def results():
    names = [o for o in pages() if o not in slow]
    env = os.environ | dict(OMP_NUM_THREADS='1', MPLBACKEND='agg', PYTHONWARNINGS='ignore', PYTHONPATH=str(root))
    res = subprocess.run([sys.executable, __file__, *names], cwd=root, env=env, capture_output=True, text=True)
    assert res.returncode==0, res.stderr
    return {o.split('\x1f')[0]:o.split('\x1f')[2].strip() for o in res.stdout.split('\x1e')[1:]}

@pytest.mark.skipif(not hasattr(os, 'fork'), reason="needs os.fork")
@pytest.mark.parametrize('page', [o for o in pages() if o not in slow])
def test_visible_cells_run(page, results): assert results[page]=='ok', results[page]

def test_most_pages_are_tried(): assert len(set(pages())-slow)>=9

def test_a_hidden_import_is_noticed(monkeypatch, tmp_path):
    "A page whose import is hidden stops"
    from fastcore.nbio import mk_cell, new_nb, write_nb
    write_nb(new_nb([mk_cell('#| hide\nimport math'), mk_cell('math.pi')]), tmp_path/'page.ipynb')
    monkeypatch.setattr(sys.modules[__name__], 'nbs', tmp_path)
    here = os.getcwd()
    try: assert "name 'math' is not defined" in run('page.ipynb')
    finally: os.chdir(here)

if __name__=='__main__': main(sys.argv[1:])
