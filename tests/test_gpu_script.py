"""benchmarks/gpu.py in small and on the processor, so that it is known to work before it meets a card"""
import csv, os, re, subprocess, sys, pytest, torch
from pathlib import Path

script = Path(__file__).parent.parent/'benchmarks'/'gpu.py'
pytest.importorskip('torchvision')

def run(*args, **kw):
    env = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(script.parent.parent))
    return subprocess.run([sys.executable, str(script), *args], capture_output=True, text=True, timeout=500, env=env, **kw)

@pytest.fixture(scope='module')
def quick(): return run('--device', 'cpu', '--quick')

def rows(out, section):
    "What a section printed, by name; and how many rows it says there are"
    n = int(re.search(rf'^{section}: \d+ s, (\d+) rows$', out, re.M)[1])
    lines = out[re.search(rf'^{section}: .*$', out, re.M).end():].splitlines()[1:]
    return n,[o.strip() for o,_ in zip(lines, range(n))]

def test_all_of_it_works(quick):
    assert quick.returncode==0, quick.stdout[-2000:]+quick.stderr[-2000:]
    assert 'FAIL' not in quick.stdout and re.search(r'^\d+ rows, 0 failed, \d+ s$', quick.stdout, re.M)

def test_each_part_did_something(quick):
    "Every mixer, precision and library has its row, and no section is empty"
    mixers = 'MixUp','CutMix','FMix','ResizeMix','ManifoldMixUp','OutputMixUp','MixChoice'
    n,_ = rows(quick.stdout, 'functional')
    assert n>=30+4+13+24+len(mixers) # batch functions, draws, losses, transforms, callbacks
    _,waits = rows(quick.stdout, 'waits')
    assert {f'no wait in a batch {m} fastmix: 0 largest difference' for m in mixers} <= {*waits}
    _,precision = rows(quick.stdout, 'precision')
    assert sum(o.startswith('bfloat16') for o in precision)==len(mixers) and sum(o.startswith('torch.compile') for o in precision)==4
    n,speed = rows(quick.stdout, 'speed')
    assert len(speed)==n and sum(o.startswith('step of a ResNet-18') for o in speed)==1+len(mixers)
    for what in ('MixUp','CutMix'): assert sum(o.startswith(what+' ') and 'over the limit' in o for o in speed)==1
    _,cifar = rows(quick.stdout, 'cifar')
    assert len(cifar)==4 and all(0<=float(o.split()[-3])<=1 for o in cifar if 'best accuracy' in o)

@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(script.parent))
    return pytest.importorskip('gpu')

def test_failures_are_told(gpu, monkeypatch):
    "What is wrong is named, and what comes after it is tried all the same"
    def wrong(x, **kw): return fastmix.mixup_batch(x, **kw)[0].flip(0),None,None
    r,fastmix = gpu.Run('cpu', True, ''),gpu.fm
    x,perm,lam = torch.randn(4,3), torch.tensor([1,2,3,0]), torch.rand(4)
    def compare(f): return gpu.differ([f(x, perm=perm, lam=lam)[0]], [fastmix.mixup_batch(x, perm=perm, lam=lam)[0]], 1e-5)
    def section(r):
        r.check('mix', 'right', lambda: compare(fastmix.mixup_batch))
        r.check('mix', 'wrong', lambda: compare(wrong))
        r.check('mix', 'stops', lambda: 1/0)
        raise OSError('no such card')
    monkeypatch.setitem(gpu.sections, 'some', section)
    r.run('some')
    assert [o['value'] for o in r.res]==[0.,'failed','failed']
    assert [o.split(':')[-2].strip() for o in r.bad]==['AssertionError','ZeroDivisionError','OSError']
    assert 'mix, wrong' in r.bad[0] and 'differs by' in r.bad[0] and 'no such card' in r.bad[2]

def test_other_libraries_may_fail(gpu, capsys):
    "What another library can't do is left out; what fastmix can't do is an error"
    def stops(): raise RuntimeError('not on this device')
    assert [*gpu.runnable(None, {'fastmix':list, 'timm':stops, 'kornia':(list,list)})]==['fastmix','kornia']
    assert 'timm is left out: RuntimeError: not on this device' in capsys.readouterr().out
    with pytest.raises(RuntimeError): gpu.runnable(None, {'fastmix, one lambda':stops})

def test_tables(gpu, tmp_path):
    "What is written names the device, and a second run takes the place of the first"
    r = gpu.Run('cpu', True, '')
    for value in (.5,.25):
        r.res = [gpu.row('speed', 'MixUp', '2x2', 'fastmix', value, 'seconds')]
        gpu.write(r, tmp_path)
    table,info = ([*csv.DictReader((tmp_path/o).open())] for o in ('gpu.csv','gpu_versions.csv'))
    assert [o['value'] for o in table]==['0.25'] and [o['device'] for o in info]==['cpu'] and info[0]['torch']==torch.__version__.split('+')[0]
