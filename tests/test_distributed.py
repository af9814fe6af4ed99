"""Training by several processes through fastai's own `distrib_ctx`, on processors

Each launch runs this file with `torchrun`. Fastai hands out the samples of a batch with a method that needs a GPU: that one is replaced."""
import json, os, runpy, subprocess, sys, numpy as np, pytest, torch, torch.nn.functional as F
from functools import partial
from pathlib import Path
from torch import nn

root = Path(__file__).resolve().parent.parent
n,lr = 24,0.1
on_cpu = dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', ACCELERATE_USE_CPU='true')

# What each process does

def _broadcast(self, t, rank):
    t = torch.tensor(t)
    torch.distributed.broadcast(t, rank)
    return t.tolist()

def counted(f):
    "How often the processes talked to each other while `f` ran, by kind"
    with torch.profiler.profile() as prof: f()
    return {o.key:o.count for o in prof.key_averages() if 'gloo' in o.key or 'c10d' in o.key}

def get_model(kind):
    "The same weights each time, whatever the seed"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if kind=='tokens': return nn.Sequential(nn.Embedding(9, 6), nn.Flatten(), nn.Linear(18, 4))
        if kind=='deep': return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))

def get_data(kind):
    g = torch.Generator().manual_seed(2)
    x = torch.randint(9, (n,3), generator=g) if kind=='tokens' else torch.randn(n, 1, 3, 4, generator=g)
    return x,torch.randint(4, (n,), generator=g)

def work(out):
    "Train with each mixer, and write down what was drawn, which samples came, and the weights at the end"
    from fastai.basics import Callback, DataLoaders, Learner, OptimWrapper, rank_distrib, set_seed
    from fastai.distributed import DistributedDL
    import fastmix.all as fm
    DistributedDL._broadcast = _broadcast
    class Log(Callback):
        order,run_valid = -5,False
        def before_batch(self): self.learn.log.append(dict(ids=self.y.tolist()))
        def after_pred(self): self.log[-1].update(x=self.x.tolist(), pred=self.pred.tolist())
        def before_step(self):
            if (m := self.learn.mixer) is None: return
            self.log[-1].update(mixed=m.lam is not None, loss=self.loss.item())
            if m.lam is not None: self.log[-1].update(perm=m.perm.tolist(), lam=m.lam.tolist())
    def _train(cb, kind, seed):
        set_seed(seed)
        x,y = get_data(kind)
        data = list(zip(x, torch.arange(n)))
        dls = DataLoaders.from_dsets(data, data, bs=6, shuffle=(True,False), num_workers=0, device='cpu')
        def _loss(pred, ids, reduction='mean'): return F.cross_entropy(pred, y[ids], reduction=reduction)
        sgd = partial(OptimWrapper, opt=torch.optim.SGD)
        learn = Learner(dls, get_model(kind), loss_func=_loss, cbs=[Log, *([cb] if cb else [])], opt_func=sgd)
        learn.log = []
        with learn.no_bar(),learn.no_logging(),learn.distrib_ctx(sync_bn=False): learn.fit(2, lr)
        left = sum(len(o._forward_hooks)+len(o._forward_pre_hooks) for o in learn.model.modules())
        weights = torch.cat([o.detach().flatten() for o in learn.model.parameters()]).tolist()
        return dict(log=learn.log, weights=weights, valid=list(learn.recorder.values[-1]), hooks=left, model=type(learn.model).__name__)
    make = dict(MixUp=(lambda **kw: fm.MixUp(1., **kw), 'flat'), CutMix=(lambda **kw: fm.CutMix(**kw), 'flat'),
        half=(lambda **kw: fm.MixUp(1., p=.5, **kw), 'flat'), tokens=(lambda **kw: fm.MixUp(1., **kw), 'tokens'),
        Manifold=(lambda **kw: fm.ManifoldMixUp(1., **kw), 'deep'), Output=(lambda **kw: fm.OutputMixUp(1., **kw), 'deep'),
        Choice=(lambda **kw: fm.MixChoice(fm.MixUp(1., **kw), fm.CutMix(**kw)), 'flat'))
    res = {}
    for name,(mk,kind) in make.items(): res[name] = [_train(mk(), kind, 0), _train(mk(), kind, 0), _train(mk(), kind, 1)]
    gen = torch.Generator().manual_seed(5)
    res['generator'] = [_train(fm.MixUp(generator=gen), 'flat', 0), _train(fm.MixUp(generator=gen), 'flat', 0)]
    res['own seeds'] = [_train(fm.MixUp(), 'flat', rank_distrib())]
    res['talk'] = {k:counted(lambda: _train(cb, 'deep', 0)) for k,cb in dict(plain=None, MixUp=fm.MixUp(), CutMix=fm.CutMix(),
        Manifold=fm.ManifoldMixUp(), Output=fm.OutputMixUp()).items()}
    Path(out, f'rank{rank_distrib()}.json').write_text(json.dumps(res))
    torch.distributed.destroy_process_group()

def example(args):
    "The example as it is, but for fastai's one method"
    from fastai.distributed import DistributedDL
    DistributedDL._broadcast = _broadcast
    sys.argv = ['distributed.py', *args]
    runpy.run_path(str(root/'examples/distributed.py'), run_name='__main__')
    torch.distributed.destroy_process_group()

# What they should have done

def launch(*args, n=2):
    "`torchrun` on a free port"
    cmd = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(n), *map(str, args)]
    env = {k:v for k,v in os.environ.items() if k not in ('RANK','WORLD_SIZE','LOCAL_RANK')}
    res = subprocess.run(cmd, capture_output=True, text=True, timeout=500, cwd=root, env=env|on_cpu)
    assert not res.returncode, res.stdout+res.stderr
    return res.stdout

@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    "What two processes wrote down"
    out = tmp_path_factory.mktemp('ranks')
    launch(__file__, 'work', out)
    return [json.loads((out/f'rank{r}.json').read_text()) for r in range(2)]

names = ['MixUp','CutMix','half','tokens','Manifold','Output','Choice','generator','own seeds']
def drawn(run): return [(o['perm'],o['lam']) for o in run['log'] if o['mixed']]

@pytest.mark.parametrize('name', names)
def test_weights_agree(ranks, name):
    "All ranks have the same weights after each run, to the last bit, and the same validation loss; the model is as it was before"
    for a,b in zip(*(r[name] for r in ranks)):
        assert a['weights']==b['weights'] and np.isfinite(a['weights']).all() and a['valid'][1]==b['valid'][1]
        assert a['model']==b['model']=='Sequential' and a['hooks']==b['hooks']==0

@pytest.mark.parametrize('name', names)
def test_draws_differ(ranks, name):
    "Ranks that were seeded alike see other samples and draw other mixes"
    for a,b in zip(*(r[name] for r in ranks)):
        assert len(a['log'])==len(b['log'])==4
        for epoch in (slice(0,2),slice(2,4)):
            ids = [sum((o['ids'] for o in r['log'][epoch]), []) for r in (a,b)]
            assert sorted(ids[0]+ids[1])==list(range(n))
        assert drawn(a) and drawn(b) and not any(o in drawn(b) for o in drawn(a))
    if name=='half': assert {o['mixed'] for r in ranks for run in r['half'] for o in run['log']}=={True,False}

@pytest.mark.parametrize('name', names[:-2])
def test_seed_repeats(ranks, name):
    "The same seed repeats a run on each rank, bit for bit; another one does not"
    for first,again,other in (r[name] for r in ranks):
        assert drawn(first)==drawn(again) and first['weights']==again['weights'] and first['log']==again['log']
        assert drawn(first)!=drawn(other) and first['weights']!=other['weights']

def test_generator_goes_on(ranks):
    "A generator of one's own is drawn from, and not started afresh in the next fit"
    for first,second in (r['generator'] for r in ranks): assert not any(o in drawn(second) for o in drawn(first))

@pytest.mark.parametrize('name', ['MixUp','CutMix'])
def test_one_process_agrees(ranks, name):
    "Both ranks together take the steps that one process would take with the mean of their mixed losses"
    (x,y),model = get_data('flat'),get_model('flat')
    for step in range(4):
        losses = []
        for row in (r[name][0]['log'][step] for r in ranks):
            xb,yb,xm = x[row['ids']],y[row['ids']],torch.tensor(row['x'])
            lam,perm = torch.tensor(row['lam']),torch.tensor(row['perm'])
            lam = lam.expand(len(xb))
            own = ((xm==xb).float().mean((1,2,3)) if name=='CutMix' else lam)
            if name=='MixUp': assert torch.allclose(xm, torch.stack([l*a + (1-l)*xb[j] for l,a,j in zip(lam, xb, perm)]), atol=1e-6)
            assert torch.allclose(own, lam, atol=1e-6)
            pred = model(xm)
            one = [l*F.cross_entropy(p, a) + (1-l)*F.cross_entropy(p, yb[j]) for p,a,l,j in zip(pred, yb, lam, perm)]
            losses.append(torch.stack(one).mean())
            assert abs(losses[-1].item()-row['loss'])<1e-5
        model.zero_grad()
        (sum(losses)/2).backward()
        with torch.no_grad():
            for p in model.parameters(): p -= lr*p.grad
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.allclose(weights, torch.tensor(ranks[0][name][0]['weights']), atol=1e-5)

@pytest.mark.parametrize('name', ['MixUp','CutMix','Manifold','Output'])
def test_no_more_talk(ranks, name):
    "Mixing adds no communication: the processes talk as often as without"
    for r in ranks:
        assert sum(r['talk']['plain'].values())>4
        assert r['talk'][name]==r['talk']['plain']

def test_example():
    "The example runs on two processes, and says so once"
    out = launch(__file__, 'example', '--epochs', '1', '--seed', '3', '--mix', 'MixUp', '--bs', '200')
    assert out.count('MixUp, 2 process(es)')==1

@pytest.mark.parametrize('launcher', ['python','torchrun','accelerate'])
def test_example_alone(launcher):
    "The very same script runs as one process, however it is started, and a seed repeats it"
    cmd = dict(python=[sys.executable], torchrun=[sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '1'],
        accelerate=[sys.executable, '-m', 'accelerate.commands.launch', '--cpu', '--num_processes', '1', '--num_machines', '1',
            '--mixed_precision', 'no', '--dynamo_backend', 'no'])[launcher]
    cmd += ['examples/distributed.py', '--epochs', '1', '--seed', '3', '--bs', '200']
    res = subprocess.run(cmd, capture_output=True, text=True, cwd=root, env=os.environ|on_cpu)
    assert not res.returncode, res.stderr
    assert 'CutMix, 1 process(es)' in res.stdout

if __name__=='__main__': dict(work=lambda out: work(out), example=lambda *args: example(args))[sys.argv[1]](*sys.argv[2:])
