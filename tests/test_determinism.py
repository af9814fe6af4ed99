"One seed, one run: what repeats a training with mixing, what keeps its draws apart from the model's, and what a checkpoint must hold"
import pytest, random, torch, numpy as np
from torch import nn
from fastai.basics import Callback
from fastai.callback.schedule import SchedCos
from helpers import DATA, MIXERS, Y, fit, get_dls, get_learn, kind_of, mixer, net, weights

class Noise(nn.Module):
    "Dropout that keeps its masks"
    def __init__(self):
        super().__init__()
        self.masks = []
    def forward(self, x):
        if not self.training: return x
        self.masks.append(torch.rand(x.shape)<0.8)
        return x*self.masks[-1]

class Draws(Callback):
    "Keep what the mixer draws"
    order,run_valid = 100,False
    def before_batch(self):
        m = self.learn.mixer
        if m.lam is not None: self.all.append([m.perm,m.lam] + ([] if m.boxes is None else [m.boxes]))
        else: self.all.append([])
    def __init__(self): self.all = []

def some(name, **kw):
    "A mixer with all that is random about it"
    return mixer(name, p=0.7, **kw) if name=='ResizeMix' else mixer(name, alpha=SchedCos(0.2, 1.), p=0.7, **kw)

def run(name, seed, generator=None, cbs=(), n=3, m=True, **kw):
    kind = kind_of(name)
    *body,head = net(kind)
    draws = Draws()
    learn = get_learn([some(name, generator=generator),draws,*cbs] if m else [*cbs], kind, nn.Sequential(*body, Noise(), head), **kw)
    fit(learn, n, seed)
    return learn,draws.all,learn.model[-2].masks

def same(a, b): return len(a)==len(b) and all(len(p)==len(q) and all(map(torch.equal, p, q)) for p,q in zip(a,b))

@pytest.mark.parametrize('name', MIXERS)
def test_seed(name):
    "`torch.manual_seed` alone repeats a run to the last bit, and another seed does not"
    runs = []
    for i,seed in enumerate((3,3,4)):
        random.seed(i)
        np.random.seed(i)
        runs.append(run(name, seed))
    (a,draws_a,masks_a),(b,draws_b,masks_b),(c,draws_c,_) = runs
    assert torch.equal(weights(a), weights(b)) and a.recorder.losses==b.recorder.losses and same(draws_a, draws_b)
    assert not torch.equal(weights(a), weights(c)) and not same(draws_a, draws_c)
    assert 0<len([o for o in draws_a if o])

@pytest.mark.parametrize('name', MIXERS)
def test_only_torch(name):
    "Nothing is drawn from Python's or NumPy's random numbers"
    def _state(m):
        run(name, 0, m=m)
        return random.random(),np.random.rand()
    random.seed(5)
    np.random.seed(5)
    a = _state(True)
    random.seed(5)
    np.random.seed(5)
    assert a==_state(False)

@pytest.mark.parametrize('name', MIXERS)
def test_generator(name):
    "With a generator the mixer draws the same whatever else is drawn, and all else is drawn as without a mixer"
    def _gen(seed): return torch.Generator().manual_seed(seed)
    (_,draws,masks),(_,draws1,masks1),(_,draws2,_) = run(name, 0, _gen(7)),run(name, 1, _gen(7)),run(name, 0, _gen(8))
    assert same(draws, draws1) and not same([masks], [masks1]) and not same(draws, draws2)
    after = torch.get_rng_state()
    run(name, 0, _gen(7), m=True)
    mixed = torch.get_rng_state()
    _,_,plain_masks = run(name, 0, m=False)
    assert same([masks], [plain_masks]) and torch.equal(mixed, torch.get_rng_state())
    _,_,entangled = run(name, 0)
    assert not same([masks], [entangled])

class Checkpoint(Callback):
    "All that the rest of a run depends on, after epoch `at`"
    order = 1000
    def __init__(self, at, generator): self.at,self.generator = at,generator
    def after_epoch(self):
        if self.epoch!=self.at: return
        self.learn.save('half') # weights and the optimizer's state
        self.state = dict(torch=torch.get_rng_state(), loader=self.dls.train.rng.getstate())
        if self.generator: self.state['mixer'] = self.generator.get_state()

    def resume(self, learn, generator):
        learn.load('half')
        learn.dls.train.rng.setstate(self.state['loader'])
        if generator: generator.set_state(self.state['mixer'])
        torch.set_rng_state(self.state['torch'])

@pytest.mark.parametrize('own', [False,True])
@pytest.mark.parametrize('name', MIXERS)
def test_resume(name, own, tmp_path):
    "A run that goes on from a checkpoint is the run that never stopped; without the random numbers' state it is another"
    kind = kind_of(name)
    def _dls(): return get_dls(DATA[kind], Y, shuffle=True)
    def _gen(): return torch.Generator().manual_seed(7) if own else None
    saved = Checkpoint(1, g:=_gen())
    whole,draws,_ = run(name, 0, g, [saved], 4, dls=_dls(), path=tmp_path)
    g,again = _gen(),Draws()
    *body,head = net(kind)
    learn = get_learn([some(name, generator=g),again], kind, nn.Sequential(*body, Noise(), head), dls=_dls(), path=tmp_path)
    torch.manual_seed(99)
    saved.resume(learn, g)
    fit(learn, 4, None, start_epoch=2)
    assert torch.equal(weights(learn), weights(whole)) and same(again.all, draws[4:])
    assert learn.recorder.values[-1][1:]==whole.recorder.values[-1][1:] # all but the smoothed training loss, which starts anew
    saved.resume(learn, g)
    (g or torch.default_generator).manual_seed(1)
    assert not torch.equal(weights(fit(learn, 4, None, start_epoch=2)), weights(whole))
