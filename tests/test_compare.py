"Comparisons: false alarms, a file of runs for several processes, and mistakes that are told before anything is trained"
import multiprocessing as mp, os, signal, subprocess, sys, time
from functools import partial
from types import SimpleNamespace
import numpy as np, pytest, torch
from fastai.callback import mixup as theirs
from fastai.callback.schedule import Learner
from fastai.data.core import DataLoaders
from fastai.metrics import F1Score, accuracy
from torch import nn
from fastmix.all import CutMix, MixUp, compare
from fastmix.runs import Comparison
from fastmix.store import read_runs

# ---- false alarms
def comparison(values):
    "A `Comparison` of `values`, of shape mixes (the first is none), metrics, seeds"
    names = ['train_loss','accuracy','valid_loss','f1_score'][:values.shape[1]+1]
    return Comparison([dict(mix=f'mix {i}', what=str(i or None), seed=j, names=names, values=[[0.,*v[:,j].tolist()]], seconds=1., measured={})
        for i,v in enumerate(values) for j in range(values.shape[2])])

draws = dict(normal=lambda rng, shape: rng.normal(size=shape), images=lambda rng, shape: rng.binomial(100, .9, size=shape)/100)

@pytest.mark.parametrize('kind', draws)
def test_false_alarms(kind):
    "Mixes that do nothing: a difference is reported in at most 5 % of the comparisons, give or take three standard errors"
    n,rng,alarms,bests = 12,np.random.default_rng(0),0,0
    shapes = [(a+1,m,s) for a,m in ((3,2),(4,2),(6,3)) for s in (2,3,5)]
    for shape in shapes*n:
        res = comparison(draws[kind](rng, shape))
        said = res.diffs.verdict.isin(['higher','lower'])
        alarms += said.any()
        bests += said.any() and res.best is not None
        assert said.equals(res.diffs.p<.05)
    total = n*len(shapes)
    assert alarms <= .05*total + 3*(.05*.95*total)**.5
    assert alarms or kind!='normal' # else the judge is asleep
    assert bests<=alarms

def test_differences_are_seen():
    "With as many seeds as `needed` says, a difference of that size is seen about 4 times in 5, in a table with others"
    rng,effect,others = np.random.default_rng(1),1.8,3
    first = comparison(np.stack([np.zeros((1,5)), *[rng.normal(size=(1,5)) for _ in range(others)], np.array([[-1.,-.5,0,.5,1]])/.7905694+effect]))
    n = int(first.diffs.set_index('mix').needed[f'mix {others+1}'])
    assert first.diffs.seeds.max()==5<n
    hits = 0
    for _ in range(80):
        noise = rng.normal(size=(others+2,1,n))
        noise[0] = 0
        noise[-1] += effect
        hits += comparison(noise).diffs.verdict.iloc[-1]=='higher'
    assert .68<=hits/80<=.96 # Holm sees a little more than the level of the calculation

def test_intervals_hold_together():
    "All intervals of a table hold the true differences at once in 95 % of the comparisons"
    rng,n,held = np.random.default_rng(2),100,0
    true = np.array([.5,-.2,0,.1])
    for _ in range(n):
        values = rng.normal(size=(5,2,3))
        values[1:,0] += true[:,None]
        d = comparison(values).diffs
        want = d.apply(lambda o: true[int(o.mix[-1])-1] if o.metric=='accuracy' else 0., axis=1)
        held += ((d.low<want)&(want<d.high)).all()
    assert held>=.95*n-3*(.05*.95*n)**.5

# ---- one file of runs
class Slow(Learner):
    "A Learner whose training notes that it begins, takes a while, and comes to what its seed says"
    def pretend(self, n_epoch, lr=None):
        with open(self.notes, 'a') as f: f.write(f"{os.getpid()} {self.seed} {len(self.cbs)}\n")
        time.sleep(self.secs)
        self.recorder.metric_names = ['epoch','train_loss','valid_loss','accuracy','time']
        self.recorder.values = [[.1,.2,self.seed+.5]]*n_epoch

def batches():
    "Loaders of one batch each"
    data = [(torch.zeros(4), torch.tensor(0)), (torch.ones(4), torch.tensor(1))]*4
    return DataLoaders.from_dsets(data, data, bs=8, num_workers=0, device='cpu')

def get_slow(seed, log='', secs=0.05, cls=Slow):
    learn = cls(batches(), nn.Linear(4,2), loss_func=nn.CrossEntropyLoss(), metrics=accuracy)
    learn.notes,learn.seed,learn.secs = log,seed,secs
    return learn

MIXES = dict(none=None, MixUp=MixUp(), CutMix=CutMix())
def work(out, log, secs=0.05, seeds=4, n_epoch=1):
    torch.set_num_threads(1)
    return compare(partial(get_slow, log=log, secs=secs), MIXES, n_epoch, seeds=seeds, out=out, fit='pretend', quiet=True)

def start(n, *args, **kw):
    ps = [mp.get_context('fork').Process(target=work, args=args, kwargs=kw) for _ in range(n)]
    for p in ps: p.start()
    return ps

def whole(out, log, n=12):
    "`out` holds each run once, and no more runs were begun than that"
    lines = out.read_bytes().splitlines()
    assert len(lines)==len(read_runs(out))==n
    assert {(r['mix'],r['seed']) for r in read_runs(out)}=={(m,s) for m in MIXES for s in range(n//3)}
    assert [o.name for o in out.parent.glob('runs*')].count('runs.lock')==1 and len(list(out.parent.glob('runs*')))==2
    return log.read_text().splitlines()

@pytest.mark.parametrize('again', range(4))
def test_processes_share_a_file(tmp_path, again):
    "Three processes train each run once together, and each returns the whole"
    out,log = tmp_path/'runs',tmp_path/'log'
    for p in (ps := start(3, out, log)): p.join(60)
    assert [p.exitcode for p in ps]==[0]*3
    begun = whole(out, log)
    assert len(begun)==12 and len({o.split()[0] for o in begun})>1
    res = work(out, log)
    assert len(log.read_text().splitlines())==12 and (res.diffs.seeds==4).all()

def test_a_process_dies(tmp_path):
    "What a killed process had begun is trained by another, which need not wait for anything to run out"
    out,log = tmp_path/'runs',tmp_path/'log'
    first, = start(1, out, log, secs=60)
    while not log.exists() or not log.read_text(): time.sleep(.05)
    others = start(2, out, log)
    while len(read_runs(out))<11: time.sleep(.05)
    assert all(p.is_alive() for p in others) # they wait for the run of the first
    os.kill(first.pid, signal.SIGKILL)
    for p in others: p.join(60)
    assert [p.exitcode for p in others]==[0,0]
    begun = whole(out, log)
    assert len(begun)==13 and sum(o.startswith(f'{first.pid} ') for o in begun)==1

def test_a_process_dies_while_it_writes(tmp_path):
    "Half a line of a dead process is no run, and harms none"
    out,log = tmp_path/'runs',tmp_path/'log'
    work(out, log, secs=0)
    lines = out.read_bytes().splitlines(True)
    out.write_bytes(b''.join(lines[:-1]) + lines[-1][:40])
    for p in (ps := start(2, out, log, secs=0)): p.join(60)
    assert [p.exitcode for p in ps]==[0,0] and len(read_runs(out))==12 and len(log.read_text().splitlines())==13

def test_other_settings_in_the_same_file(tmp_path):
    "Two processes begin at once with other settings: the one that finishes a run later says so, and does not write it"
    out,log = tmp_path/'runs',tmp_path/'log'
    quick, = start(1, out, log, secs=.5, seeds=1)
    with pytest.raises(ValueError, match="n_epoch of '.*' is 1, not 2") as e: work(out, log, secs=1.5, seeds=2, n_epoch=2)
    assert len(str(e.value))<400
    quick.join(60)
    assert quick.exitcode==0 and {r['n_epoch'] for r in read_runs(out)}=={1} and len(read_runs(out))==3

def test_an_interrupt_lets_go_of_the_claim(tmp_path):
    "After Ctrl-C the same process can go on, though the exception is still held"
    out,log = tmp_path/'runs',tmp_path/'log'
    class Stopped(Slow):
        def pretend(self, *args): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt) as held:
        compare(partial(get_slow, cls=Stopped), MIXES, 1, seeds=4, out=out, fit='pretend', quiet=True)
    work(out, log, secs=0)
    assert len(whole(out, log))==12 and held

# ---- mistakes
class Untrained(Learner):
    def fit(self, *args, **kwargs): raise AssertionError('trained')

def get_learner(seed): return get_slow(seed, cls=Untrained)
def built(): return get_learner(0)
def arrays(pred, y): return torch.zeros(1000)
class MyLearner(Untrained):
    model_dir = 'models'
    def fit_own(self, n_epoch, momentum, lr): pass

MISTAKES = [ # arguments, and what the message has to say
    (dict(get_learner=built()), 'a function of a seed', 'but got a Untrained', 'def get_learner(seed): return'),
    (dict(get_learner=lambda: built()), 'one argument, the seed', 'def get_learner(seed)'),
    (dict(get_learner=lambda dls, model: built()), '(dls, model)', 'def get_learner(seed)'),
    (dict(get_learner=lambda seed: None), 'get_learner(0) to return a Learner', 'but got NoneType', 'return Learner('),
    (dict(get_learner=lambda seed: built().mixup()), 'without a mix', 'MixUp(alpha=0.4)', 'mixes=dict('),
    (dict(get_learner=lambda seed, one=built(): one), 'a new model each time', 'inside get_learner'),
    (dict(seeds=[1,1]), 'seeds that differ', '[1, 1]', 'seeds=3'), (dict(seeds=0), 'at least 1', 'but got 0', 'seeds=3'),
    (dict(seeds=[]), 'at least one', 'seeds=3'), (dict(seeds='3'), "but got '3'", 'seeds=3'), (dict(seeds=2.), 'but got 2.0', 'seeds=3'),
    (dict(seeds=True), 'but got True', 'seeds=3'), (dict(seeds=[-1]), 'at least 0', 'but got -1'),
    (dict(n_epoch=0), 'n_epoch as a whole number of at least 1', 'but got 0', 'n_epoch=5'), (dict(n_epoch='5'), "but got '5'", 'n_epoch=5'),
    (dict(n_epoch=2.5), 'but got 2.5', 'n_epoch=5'), (dict(n_epoch=None), 'but got None', 'n_epoch=5'),
    (dict(lr='1e-2'), "but got '1e-2'", 'lr=1e-2'), (dict(lr=0), 'above 0', 'but got 0'), (dict(lr=-1e-2), 'above 0', 'but got -0.01'),
    (dict(lr=float('nan')), 'finite', 'but got nan'), (dict(lr=[.1,'.2']), "but got '.2'", 'lr=1e-2'),
    (dict(lr=SimpleNamespace(valley=.1)), 'lr=learn.lr_find().valley'),
    (dict(fit='fit_onecycle'), "but got 'fit_onecycle'", "fit='fit_one_cycle'"), (dict(fit='train'), "but got 'train'", 'fit_one_cycle'),
    (dict(fit=Learner.fit_flat_cos), 'the name of a method', "fit='fit_flat_cos'"), (dict(fit='fit_sgdr', lr=.1), 'fit_sgdr(n_cycles, cycle_len'),
    (dict(fit='fit_own', lr=.1, get_learner=partial(get_slow, cls=MyLearner)), 'fit_own(n_epoch, momentum, lr'),
    (dict(fit='model_dir', get_learner=partial(get_slow, cls=MyLearner)), "but got 'model_dir'"),
    (dict(metrics='acuracy'), "but got 'acuracy'", 'metrics=acuracy, without quotes'), (dict(metrics=[accuracy,3]), 'but got 3', 'metrics=accuracy'),
    (dict(metrics=F1Score), 'F1Score failed with', 'metrics=[accuracy, F1Score()]'), (dict(metrics=arrays), 'array of shape (1000,)', '.mean().item()'),
    (dict(metrics=lambda p: 0.), 'failed with TypeError'), (dict(metrics=lambda p, y: 'good'), 'failed with'),
    (dict(measure=3), 'measure as a function', 'but got 3', 'def measure(learn)'),
    (dict(out='.'), 'the folder', 'runs.jsonl'), (dict(out=3), 'but got 3', "out='runs.jsonl'"), (dict(out=__file__), 'holds something else', 'another `out`'),
    (dict(out=__file__ + '/runs'), 'a file that can be written', "out='runs.jsonl'"),
    (dict(mixes=[MixUp()]), 'a dict of names', 'mixes=dict(none=None'), (dict(mixes=MixUp()), 'a dict of names', 'mixes=dict(none=None'),
    (dict(mixes={}), 'a dict of names', 'mixes=dict(none=None'), (dict(mixes=dict(a=MixUp)), 'but got the class MixUp: MixUp()'),
    (dict(mixes=dict(a=.4)), "mixes['a']", 'but got 0.4'), (dict(mixes={1:None}), 'strings', 'but got 1'),
    (dict(mixes=dict(a=torch.zeros(1000))), "mixes['a']", 'but got tensor')]

@pytest.mark.parametrize('kw,words', [(o[0],o[1:]) for o in MISTAKES], ids=[f"{i} {' '.join(o[0])}" for i,o in enumerate(MISTAKES)])
def test_mistakes_are_told_first(kw, words, monkeypatch, tmp_path):
    "One short message, before anything is trained"
    before = open(__file__, 'rb').read()
    monkeypatch.setattr(Learner, 'fit', Untrained.fit)
    kw = dict(get_learner=get_learner, mixes=dict(none=None, MixUp=MixUp()), quiet=True) | kw
    with pytest.raises((TypeError,ValueError)) as e: compare(**kw)
    text = str(e.value)
    assert text.startswith('Expected') and len(text)<400 and '\n' not in text
    for o in words: assert o in text, text
    assert open(__file__, 'rb').read()==before

def test_numbers_of_numpy(tmp_path):
    "NumPy's numbers do as Python's, in the file as well"
    kw = dict(fit='pretend', quiet=True, out=tmp_path/'runs')
    get = partial(get_slow, log=tmp_path/'log', secs=0)
    a = compare(get, MIXES, np.int64(2), np.float32(.5), np.arange(2), **kw)
    assert a.runs==compare(get, MIXES, 2, .5, 2, **kw).runs and len((tmp_path/'log').read_text().splitlines())==6

# ---- what is shown
SCRIPT = """
import torch; torch.set_num_threads(1)
from fastai.basics import *
from fastmix.all import *
x,y = torch.randn(8,4),torch.arange(8)%2
def get_learner(seed):
    data = list(zip(x,y))
    return Learner(DataLoaders.from_dsets(data, data, bs=8, num_workers=0, device='cpu'), nn.Linear(4,2), loss_func=nn.CrossEntropyLoss(), metrics=accuracy)
compare(get_learner, dict(none=None, MixUp=MixUp()), 1, 1e-2, seeds=2, quiet=QUIET)
"""
@pytest.mark.parametrize('quiet', [False,True])
def test_progress_in_a_pipe(quiet):
    "A line for each run, without the characters that draw a bar; nothing if that is asked for"
    got = subprocess.run([sys.executable, '-W', 'ignore', '-c', SCRIPT.replace('QUIET', str(quiet))], capture_output=True, check=True, timeout=300)
    lines = got.stdout.decode().splitlines()
    assert b'\r' not in got.stdout and len(lines)==(0 if quiet else 4)
    assert quiet or [o.split(': accuracy ')[0] for o in lines]==['1/4 none, seed 0','2/4 MixUp, seed 0','3/4 none, seed 1','4/4 MixUp, seed 1']

def test_mixes_of_fastai_are_named(tmp_path):
    "fastai's MixUp, imported by mistake, is not mistaken for this one, in the table or the file"
    res = compare(partial(get_slow, log=tmp_path/'log', secs=0), dict(none=None, MixUp=theirs.MixUp(.3)), 1, seeds=1, fit='pretend', quiet=True)
    assert res.mixes==['none','MixUp (fastai)'] and 'MixUp (fastai)' in repr(res) and res.runs[1]['what']=="fastai's MixUp(alpha=0.3)"

def test_one_seed_says_so(tmp_path):
    res = compare(partial(get_slow, log=tmp_path/'log', secs=0), MIXES, 1, seeds=1, fit='pretend', quiet=True)
    assert 'inf' not in res.verdict and 'One seed cannot tell a difference from noise: give seeds=3 or more' in res.verdict
