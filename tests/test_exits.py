"Whatever stops training, and wherever: the learner is as it was, validates as it would without a mixer, and trains on"
import copy, gc, itertools, math, pytest, torch, warnings, weakref
from torch import nn
from fastai.basics import Callback, Optimizer, sgd_step
from fastai.callback.core import (CancelBackwardException, CancelBatchException, CancelEpochException, CancelFitException,
    CancelStepException, CancelTrainException, CancelValidException, _inner_loop, event)
import fastmix.all as fm
from helpers import DATA, MIXERS, bs, fit, get_learn, hooks, kind_of, mixer, net, quiet, weights

Cancels = dict(backward=CancelBackwardException, step=CancelStepException, batch=CancelBatchException, train=CancelTrainException,
    validate=CancelValidException, epoch=CancelEpochException, fit=CancelFitException)
OutOfMemory = getattr(torch, 'OutOfMemoryError', torch.cuda.OutOfMemoryError)
EXITS = [*Cancels.values(), RuntimeError, OutOfMemory, KeyboardInterrupt]
EVENTS = [o for o in vars(event) if not o.startswith('_') and o!='after_create']
CALLS = ['forward','loss','backward','step']
# where, in validation?, behind the mixer?
PLACES = [(o,v,last) for v,os in ((False,EVENTS),(True,('before_batch','after_pred','after_loss','after_cancel_batch','after_batch')))
    for o in os for last in (False,True)] + [(o,v,True) for o in CALLS for v in (False,True) if not v or o in ('forward','loss')]

class Trap(Callback):
    """Raises `exc` once: in the event `at`, as the first callback or the last, or inside the call `at`

    In a batch that is the second of training, or one of validation."""
    armed = None
    def __init__(self, exc, at, valid=False, last=False):
        self.exc,self.at,self.valid,self.sprung,self.order = exc,at,valid,False,math.inf if last else -math.inf
        if at in EVENTS: setattr(self, at, self.spring)
        else: Trap.armed = self

    def spring(self):
        in_batch = self.at in _inner_loop or self.at in CALLS
        if self.sprung or in_batch and (self.learn.training==self.valid or not self.valid and self.learn.iter!=1): return
        self.sprung = True
        raise self.exc('trapped')

def call(at):
    if Trap.armed and Trap.armed.at==at and Trap.armed.learn: Trap.armed.spring()

# What is cancelled, and where, so that the event after it happens
leads = dict(backward='before_backward', step='before_step', batch='after_pred', train='after_batch', validate='after_batch',
    epoch='after_train', fit='after_epoch')
def traps(exc, at, valid, last):
    res = [Trap(exc, at, valid, last)]
    k = at.removeprefix('after_cancel_')
    return res if k==at else [Trap(Cancels[k], leads[k], valid or k=='validate')] + res

class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.clone()
    @staticmethod
    def backward(ctx, g):
        call('backward')
        return g

class Trapped(nn.Module):
    "Raises in its forward or backward pass; a trial of the mixer, which catches what a model raises, is no such pass"
    def forward(self, x):
        if not torch._C._len_torch_dispatch_stack(): call('forward')
        return Backward.apply(x)

during = set()
class OwnLoss(nn.CrossEntropyLoss):
    "A loss of the user's own, which says how it was asked; in a trial it raises nothing, as above"
    def forward(self, pred, y):
        res = super().forward(pred, y)
        try:
            if not torch._C._len_torch_dispatch_stack(): call('loss')
        except BaseException:
            during.add((self.reduction,res.ndim))
            raise
        return res

class Diary(Callback):
    "All that another callback sees: events, and labels"
    def __init__(self):
        self.seen = []
        for o in EVENTS: setattr(self, o, lambda o=o: self.seen.append((o, self._labels() if o in _inner_loop else ())))
    def _labels(self): return [y.tolist() for y in self.learn.yb]

def step(p, **kw): call('step')
def opt_func(params, lr): return Optimizer(params, [step, sgd_step], lr=lr)
def make(kind, cbs=None): return get_learn(cbs, kind, nn.Sequential(*net(kind), Trapped()), opt_func=opt_func, lr=0.1)

def leave(learn, exc, place):
    "Fit into a trap; what came out, and what was seen on the way"
    set_traps,diary = traps(exc, *place),Diary()
    try: fit(learn, 2, cbs=[set_traps[0],diary,*set_traps[1:]], reset_opt=True)
    except exc as e: out = type(e)
    else: out = None
    finally: Trap.armed = None
    assert all(o.sprung for o in set_traps), f"{exc.__name__} was not raised {place}"
    return out,diary.seen

@pytest.fixture(scope='module')
def plain():
    "What comes out of a Learner without a mixer"
    learn,found = fit(make('image')),{}
    def _plain(exc, place):
        learn.loss_func = OwnLoss() if place[0]=='loss' else nn.CrossEntropyLoss()
        if (exc,place) not in found: found[exc,place] = leave(learn, exc, place)
        return found[exc,place]
    return _plain

def attrs(o): return {k:v if isinstance(v, (int,float,str,type(None))) else id(v) for k,v in vars(o).items()}

def validated(learn):
    "Valid loss and metrics by `validate`, predictions, targets and losses by `get_preds`"
    with quiet(learn): return torch.cat([torch.tensor([*learn.validate()]), *[o.flatten() for o in learn.get_preds(with_loss=True)]])

def trained(learn): return weights(fit(learn, reset_opt=True))

class Case:
    "A Learner with a mixer, and what it made of one start before anything happened to it"
    def __init__(self, name, loss):
        self.kind,self.loss = kind_of(name),loss
        self.learn = learn = fit(make(self.kind)) # so that it has all that fastai gives it
        self.model,self.keys = learn.model,{*vars(learn)}
        self.start,self.attrs,learn.loss_func = copy.deepcopy(self.model.state_dict()),attrs(loss),loss
        self.valid,self.plain = self.restart(validated),self.restart(trained)
        learn.add_cb(mixer(name))
        self.mixed = self.restart(trained)
        assert not torch.equal(self.plain, self.mixed)

    def restart(self, f):
        self.model.load_state_dict(self.start)
        self.model.zero_grad() # fastai leaves gradients behind
        return f(self.learn)

    def problems(self):
        "What is not as it was"
        learn,m = self.learn,self.learn.mixer
        if learn.loss_func is not self.loss or attrs(self.loss)!=self.attrs: yield 'loss'
        if {*vars(learn)}!=self.keys|{m.name}: yield 'attributes'
        if hooks(self.model) or learn.model is not self.model: yield 'model'
        if not torch.equal(self.restart(validated), self.valid): yield 'validation'
        if not torch.equal(self.restart(trained), self.mixed): yield 'training'

    def problems_without(self):
        "What is left of the mixer when it is gone"
        learn,m = self.learn,self.learn.mixer
        learn.remove_cb(m)
        if {*vars(learn)}!=self.keys or learn._grab_cbs(fm.Mixer) or m.learn: yield 'attributes when removed'
        if hooks(self.model): yield 'hooks when removed'
        if not torch.equal(self.restart(trained), self.plain): yield 'training when removed'
        learn.add_cb(m)

# CutMix goes through every exit at every place, each of the others through a quarter of them: together those that mix in the model through all
inside = 'MixUp of tokens','ManifoldMixUp','ManifoldMixUp of tokens','MixChoice of tokens'
quarter = {o:inside.index(o) if o in inside else i for i,o in enumerate(MIXERS)}

def any_loss(name):
    "Does the mixer train with losses that it doesn't know? Not if it must have a lambda for each sample"
    return name!='MixChoice per sample'

@pytest.mark.parametrize('name', MIXERS)
def test_exits(name, plain):
    losses = (nn.CrossEntropyLoss(),OwnLoss()) if any_loss(name) else (nn.CrossEntropyLoss(),)
    cases,bad = {isinstance(o, OwnLoss):Case(name, o) for o in losses},[]
    during.clear()
    for (e,exc),(p,place) in itertools.product(enumerate(EXITS), enumerate(PLACES)):
        if name!='CutMix' and (e+p+quarter[name])%4 or place[0]=='loss' and not any_loss(name): continue
        case = cases[place[0]=='loss']
        if leave(case.learn, exc, place)!=plain(exc, place): bad.append((exc.__name__, place, 'events'))
        if exc is KeyboardInterrupt: bad += [(exc.__name__, place, o) for o in case.problems_without()]
        bad += [(exc.__name__, place, o) for o in case.problems()]
    assert not bad
    assert during==({('mean',0)} if any_loss(name) else set()) # a loss is called as it is, and not changed for a moment

class Glance(Callback):
    "Keep the first input of a fit as a callback with this `order` finds it"
    x = None
    def __init__(self, order): self.order = order
    def before_batch(self):
        if self.x is None: self.x = self.learn.x.clone()

@pytest.mark.parametrize('place', itertools.product(('after_pred','after_loss','before_backward','after_backward'), (False,), (False,True)))
def test_place_again(place):
    "Wherever a fit broke off, in the next one the mixer has its place among the callbacks from the first batch on"
    learn = make('image', m:=mixer('CutMix'))
    leave(learn, KeyboardInterrupt, place)
    before,after = Glance(type(m).order-0.1),Glance(type(m).order+0.1)
    fit(learn, cbs=[before,after])
    assert torch.equal(before.x, DATA['image'][:bs]) and not torch.equal(after.x, before.x)

def test_let_go(only_new):
    "When training broke off and the mixer is removed, nothing keeps it alive; and the mixer keeps no model"
    mixers,refs = [mixer(o) for o in MIXERS],[]
    def _break_off(m, kind):
        learn = make(kind, m)
        assert leave(learn, KeyboardInterrupt, ('forward',False,True))[0]
        learn.remove_cb(m)
        return [weakref.ref(learn),weakref.ref(learn.model)]
    def _alive(refs):
        gc.collect()
        return [o() for o in refs if o() is not None]
    for m,name in zip(mixers,MIXERS): refs += _break_off(m, kind_of(name))
    assert not _alive(refs)
    refs = [weakref.ref(o) for o in mixers]
    del mixers,m
    assert not _alive(refs)

class Wrong(Exception): pass

@pytest.mark.parametrize('name', filter(any_loss, MIXERS))
def test_own_error(name):
    "An error in the user's loss comes out as what it is, with its message, or though it has none"
    for exc,args in itertools.product((AssertionError,Wrong,KeyError), ((),('so it is',))):
        def loss(pred, y, reduction='mean'):
            if learn.training: raise exc(*args)
            return nn.functional.cross_entropy(pred, y, reduction=reduction)
        learn = get_learn(mixer(name), kind_of(name), loss_func=loss)
        with pytest.raises(exc, match=args[0] if args else exc.__name__), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            fit(learn)
