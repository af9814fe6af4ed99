"Mixing beside the rest of fastai: every batch is as its definition says, and everything else as it is without"
import inspect, io, itertools, matplotlib.pyplot as plt, numpy as np, pickle, pytest, random, torch, warnings, torch.nn.functional as F
from contextlib import redirect_stdout
from copy import deepcopy
from functools import partial
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from fastai.basics import Callback, DataLoaders, accuracy
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import CancelBatchException, CancelTrainException, FetchPredsCallback
from fastai.callback.data import CollectDataCallback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.hook import ActivationStats
from fastai.callback.preds import MCDropoutCallback
from fastai.callback.progress import CSVLogger
from fastai.callback.schedule import ParamScheduler, SchedCos, SchedLin
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback, TerminateOnNaNCallback
from fastai.callback.training import BnFreeze, GradientAccumulation, GradientClip, ShortEpochCallback
from fastai.callback.rnn import rnn_cbs
from fastai.data.all import CategoryBlock, DataBlock, Datasets, IndexSplitter
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner, load_learner
from fastai.metrics import Perplexity
from fastai.text.models import AWD_LSTM, get_language_model, get_text_classifier
from fastai.text.models.awdlstm import awd_lstm_clas_config, awd_lstm_lm_config
from fastai.vision.augment import Brightness, Flip
from fastai.vision.data import ImageBlock, PILImageBW
from fastai.losses import CrossEntropyLossFlat, LabelSmoothingCrossEntropy
import fastmix.all as fm
from fastmix.fmix import fourier_masks
from fastmix.paste import draw_cut
from helpers import DATA, MIXERS, Y, Check, bs, fit, get_dls, get_learn, hooks, kind_of, mixer, n_out, net, quiet, weights

still = [o for o in MIXERS if o in ('MixUp','MixUp of tokens','CutMix')] # these change nothing where alpha=0
images = [o for o in MIXERS if kind_of(o)=='image']

def generator(seed=0): return torch.Generator().manual_seed(seed)
def still_mixer(name): return mixer(name, alpha=0, generator=generator())
def recorded(learn): return torch.tensor([*learn.recorder.losses, *itertools.chain(*learn.recorder.values)])
def same_run(a, b, tol=0):
    "The same weights, and the same losses and metrics on the way?"
    return all(torch.allclose(f(a), f(b), rtol=tol, atol=tol, equal_nan=True) for f in (weights,recorded))

# Callbacks

class Autocast(Callback):
    "bfloat16 on the processor, done as `MixedPrecision` does it"
    order = MixedPrecision.order
    def before_batch(self):
        self.cast = torch.autocast('cpu', dtype=torch.bfloat16)
        self.cast.__enter__()
    def after_pred(self):
        assert self.pred.dtype==torch.bfloat16
        self.learn.pred = self.pred.float()
    def after_loss(self):
        assert self.loss_grad.dtype==torch.float32
        self.cast.__exit__(None, None, None)

def clean(learn, model):
    "A copy of `model` that never had anything to do with a Learner"
    res = net(kind_of_data(learn))
    res.load_state_dict(model.state_dict())
    return res
def kind_of_data(learn): return 'image' if learn.dls.train_ds[0][0].is_floating_point() else 'tokens'

class SWA(Callback):
    "Average the weights from the second epoch on; the average is right, and predicts as a model of its own"
    order = 60
    def before_fit(self): self.all = []
    def after_epoch(self):
        if self.epoch==0: return
        if self.epoch==1: self.swa = AveragedModel(self.model)
        self.swa.update_parameters(self.model)
        self.all.append(weights(self.model))
    def after_fit(self):
        if not self.all: return
        torch.testing.assert_close(weights(self.swa.module), torch.stack(self.all).mean(0))
        with torch.no_grad(): assert torch.equal(self.swa(*self.xb), clean(self.learn, self.swa.module)(*self.xb))

class MeanTeacher(Callback):
    "Add to the loss how far the model is from an average of itself, made in the middle of training, on the mixed batch"
    run_valid = False
    def before_fit(self): self.ema = None
    def after_pred(self):
        if not self.epoch: return
        if self.ema is None: self.ema = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        with torch.no_grad(): self.goal = self.ema(*self.xb)
        assert torch.equal(self.goal, clean(self.learn, self.ema.module)(*self.xb))
    def after_loss(self):
        if self.epoch: self.learn.loss_grad = self.loss_grad + F.mse_loss(self.pred, self.goal)
    def after_step(self):
        if self.epoch: self.ema.update_parameters(self.model)

class Again(Callback):
    "Run the model a second time, on other data of the same shape: they are not mixed"
    def after_pred(self):
        x = DATA[kind_of_data(self.learn)][-len(self.x):]
        with torch.no_grad(): assert torch.equal(self.model(x), clean(self.learn, self.model)(x))

class Grads(Callback):
    "Compare the gradients with those of the mixed loss times `by`, plus what earlier batches left"
    order,run_valid = 1000,False
    def __init__(self, by=1.): self.by = by
    def before_backward(self):
        ps = [*self.model.parameters()]
        new = torch.autograd.grad(self.loss_grad, ps, retain_graph=True)
        torch.testing.assert_close(self.loss_grad, self.loss*self.by)
        self.want = [g if p.grad is None else p.grad+g for p,g in zip(ps,new)]
    def after_backward(self):
        for p,g in zip(self.model.parameters(), self.want): torch.testing.assert_close(p.grad, g)

class Clipped(Callback):
    order,run_valid = GradientClip.order+1,False
    def before_step(self): assert torch.stack([p.grad.norm() for p in self.model.parameters()]).norm()<0.0101

class IsLast(Callback):
    "The model is given its memory format, and nothing but its values changes on the way through a mixer"
    order = 1000
    def before_batch(self):
        if not self.x.is_floating_point(): return
        self.learn.xb = (self.x.contiguous(memory_format=torch.channels_last),)
        assert self.model[0].weight.is_contiguous(memory_format=torch.channels_last)

CALLBACKS = dict(accumulation=lambda: [GradientAccumulation(2*bs),Grads(0.5)], bn_freeze=lambda: [BnFreeze()],
    stats=lambda: [ActivationStats(with_hist=True)], mc_dropout=lambda: [MCDropoutCallback()], mean_teacher=lambda: [MeanTeacher()],
    accumulation_over_epochs=lambda: [GradientAccumulation(3*bs),Grads(1/3)], collect=lambda: [CollectDataCallback()], swa=lambda: [SWA()],
    again=lambda: [Again()], autocast=lambda: [Autocast()],
    autocast_clip_accumulate=lambda: [Autocast(),GradientClip(0.01),GradientAccumulation(2*bs),Clipped()],
    channels_last=lambda: [ChannelsLast(),IsLast()], clip=lambda: [GradientClip(0.01),Clipped()], csv=lambda: [CSVLogger()],
    early_stopping=lambda: [EarlyStoppingCallback(min_delta=100, patience=1)], fetch_preds=lambda: [FetchPredsCallback()],
    plateau=lambda: [ReduceLROnPlateau(min_delta=100, patience=1)], save_each=lambda: [SaveModelCallback(every_epoch=True)],
    save_best=lambda: [SaveModelCallback(with_opt=True)], terminate=lambda: [TerminateOnNaNCallback()],
    scheduler=lambda: [ParamScheduler(dict(lr=SchedCos(1e-2,1e-4), mom=SchedLin(.9,.8)))], short=lambda: [ShortEpochCallback(0.)])
batches = dict(early_stopping=4, short=3) # others 6: two in each of three epochs

def model_for(cb, kind):
    *body,head = net(kind)
    if cb=='mc_dropout': body.append(nn.Dropout())
    if cb=='bn_freeze': body.append(nn.BatchNorm1d(head.in_features).requires_grad_(False))
    return nn.Sequential(*body, head)

def run(cb, cbs, path, name, fit_cbs=None):
    "Three epochs with callbacks `cbs` on the Learner and `fit_cbs` given to `fit`"
    kind = kind_of(name)
    learn = get_learn(cbs, kind, model_for(cb, kind), path=path, metrics=accuracy)
    learn.recorder.add_time = False
    with redirect_stdout(io.StringIO()): return fit(learn, 3, cbs=fit_cbs)

def numbers(*os):
    "All numbers in nested lists, tuples and tensors"
    def _flat(o): return o.flatten().tolist() if isinstance(o, torch.Tensor) else numbers(*o) if isinstance(o, (list,tuple)) else [o]
    return [x for o in os for x in _flat(o)]

def result(learn, cb):
    "What a callback leaves behind, in numbers"
    if cb=='bn_freeze': return numbers(learn.model[-2].running_mean, learn.model[-2].running_var)
    if cb=='collect': return numbers(*[(*b[1],b[2],b[3]) for b in learn.collect_data.data])
    if cb=='csv': return numbers(learn.csv_logger.read_log().values.tolist())
    if cb=='fetch_preds': return numbers(*learn.fetch_preds.preds)
    if cb=='plateau': return numbers(learn.reduce_lr_on_plateau.wait, learn.opt.hypers[-1]['lr'])
    if cb=='save_best': return numbers(learn.save_model.best)
    if cb=='stats': return numbers([s[k] for o in learn.activation_stats.stats for s in o for k in ('mean','std','near_zero')])
    return []

ways = dict( # to put callbacks, a mixer and a check on the Learner or in its fit
    behind = lambda cbs,m,check: ([*cbs,m,check],None),
    before = lambda cbs,m,check: ([check,m,*cbs[::-1]],None),
    fit = lambda cbs,m,check: ([m],[*cbs,check]),
    mixer_in_fit = lambda cbs,m,check: (cbs,[check,m]))

@pytest.mark.parametrize('cb', CALLBACKS)
def test_callbacks(cb, tmp_path):
    "Every batch is what it should be beside `cb`, in whatever order they come; and `cb` does what it does without a mixer"
    make = CALLBACKS[cb]
    for name in MIXERS:
        runs = {}
        for k in ways if name=='MixUp' else ('behind','mixer_in_fit'):
            check = Check(name)
            cbs,fit_cbs = ways[k](make(), mixer(name), check)
            runs[k] = run(cb, cbs, tmp_path, name, fit_cbs)
            assert check.seen==batches.get(cb, 6)
        for k,o in runs.items():
            assert same_run(runs['behind'], o), f"{name} and {cb}, {k}: the order matters"
            assert not hooks(o.model)
    for name in still:
        a,b = (run(cb, [*make(),*m], tmp_path, name) for m in ([],[still_mixer(name)]))
        assert same_run(a, b, 1e-6), f"{name} and {cb}"
        assert result(a, cb)==pytest.approx(result(b, cb), rel=1e-5, abs=1e-6), f"{name} and {cb}"

# Ways to train

def halves(m):
    "Parameter groups: the body, and the last layer"
    return [[p for o in m[:-1] for p in o.parameters()],[*m[-1].parameters()]]

TRAIN = dict(fit=(lambda l: l.fit(2, 1e-2), 4), fit_in_two=(lambda l: (l.fit(1, 1e-2),l.fit(1, 1e-3)), 4), # how, and the number of batches
    fit_one_cycle=(lambda l: l.fit_one_cycle(2, 1e-2), 4), fit_flat_cos=(lambda l: l.fit_flat_cos(2, 1e-2), 4),
    fit_sgdr=(lambda l: l.fit_sgdr(2, 1, 1e-2), 6), fine_tune=(lambda l: l.fine_tune(2, 1e-2, freeze_epochs=1), 6),
    frozen=(lambda l: (l.freeze(),l.fit(1, 1e-2),l.unfreeze(),l.fit(1, slice(1e-3,1e-2))), 4),
    start_epoch=(lambda l: l.fit(3, 1e-2, start_epoch=1), 4), lr_find=(lambda l: l.lr_find(num_it=7, show_plot=False), 7))

@pytest.mark.parametrize('how', TRAIN)
def test_train(how, tmp_path):
    "Each way to train mixes every batch as it should, with the same rates and the same outcome as without"
    f,n = TRAIN[how]
    for name in MIXERS:
        torch.manual_seed(0)
        check = Check(name)
        learn = get_learn([mixer(name),check], kind_of(name), path=tmp_path, splitter=halves)
        before = weights(learn)
        with quiet(learn): f(learn)
        assert check.seen==n and not hooks(learn.model)
        assert torch.equal(weights(learn), before)==(how=='lr_find')
    for name in still:
        pair = []
        for m in ([],[still_mixer(name)]):
            torch.manual_seed(0)
            learn = get_learn(m, kind_of(name), path=tmp_path, splitter=halves)
            with quiet(learn): f(learn)
            pair.append(learn)
        assert same_run(*pair, 1e-6) and pair[0].recorder.lrs==pair[1].recorder.lrs, f"{name} and {how}"

@pytest.mark.parametrize('name', MIXERS)
def test_frozen(name):
    "Frozen layers stay, and the others train"
    learn = get_learn(mixer(name), kind_of(name), splitter=halves)
    def parts(): return weights(learn.model[:-1]),weights(learn.model[-1])
    body,head = parts()
    learn.freeze()
    fit(learn)
    assert torch.equal(parts()[0], body) and not torch.equal(parts()[1], head)
    learn.unfreeze()
    assert not torch.equal(fit(learn) and parts()[0], body)

def held(m):
    "All tensors that a mixer holds, wherever they are in it"
    def _in(o):
        if id(o) in seen or isinstance(o, (type,nn.Module,Learner)): return
        seen[id(o)] = o
        if isinstance(o, torch.Tensor): return res.append(o)
        for v in o.values() if isinstance(o, dict) else o if isinstance(o, (list,tuple,set)) else [getattr(o, '__dict__', None)]: _in(v)
    res,seen = [],{}
    _in(m)
    return res

@pytest.mark.parametrize('name', MIXERS)
def test_moved(name):
    "A mixer that has worked on one Learner works on the next as a new one does, and so it does after a fit there"
    kind,used = kind_of(name),mixer(name)
    fresh = fit(get_learn(mixer(name), kind), 2)
    one = fit(get_learn(used, kind), 2)
    assert same_run(one, fresh)
    for take_off in (False,True):
        if take_off: two.remove_cb(used)
        two = get_learn([used,check:=Check(name)], kind)
        assert same_run(fit(two, 2), fresh) and check.seen==4
    plain = get_learn(None, kind)
    assert same_run(fit(plain, 2, cbs=used), fresh) # for one fit only
    assert used.learn is None and not plain._grab_cbs(fm.Mixer) and not hooks(plain.model)
    twin = get_learn(None, kind, deepcopy(plain.model))
    assert same_run(fit(plain, reset_opt=True), fit(twin))
    assert held(used) and all(len(t)==bs and (sorted(t.tolist())==[*range(bs)] or t.is_floating_point() and t.ndim==1 or t.shape[2:]==(2,))
        for t in held(used)) # draws, but neither inputs nor targets

class Shorten(Callback):
    "Break off each epoch's training, in its first batch at `at`"
    order = 1000
    def __init__(self, at): setattr(self, at, self.stop)
    def stop(self):
        if self.training and self.epoch<6: raise CancelTrainException

@pytest.mark.parametrize('name', MIXERS)
def test_some_batches(name):
    "What is not drawn to be mixed is not, nor is its loss, though the batch before was, and though that broke off"
    for at in (None,'before_batch','after_pred','after_loss','before_backward','after_batch'):
        alpha = {} if name=='ResizeMix' else dict(alpha=1.)
        learn = get_learn([mixer(name, p=0.5, **alpha),check:=Check(name)], kind_of(name))
        fit(learn, 16, cbs=[Shorten(at)] if at else None)
        assert check.seen>=20 and 5<check.plain<27 and not hooks(learn.model)

def own_loss(pred, y): return F.cross_entropy(pred, y, label_smoothing=0.3)
def by_sample(pred, y, reduction='mean'): return F.cross_entropy(pred, y, reduction=reduction)

@pytest.mark.parametrize('name', MIXERS)
def test_new_loss(name):
    "A loss that is set between fits, or in the middle of one, is the one that is mixed, and what it is is not held against the next"
    learn,smooth = get_learn(mixer(name), kind_of(name)),partial(F.cross_entropy, label_smoothing=0.2)
    for loss,one in ((nn.CrossEntropyLoss(),None),(LabelSmoothingCrossEntropy(0.2),smooth),(CrossEntropyLossFlat(),None),
        (own_loss,own_loss),(by_sample,None),(nn.NLLLoss(),lambda p,y: -p[y]),
        (nn.CrossEntropyLoss(reduction='sum'),lambda p,y: bs*F.cross_entropy(p, y))):
        own = loss in (own_loss,by_sample) # in each of whose batches there is one lambda, which is said
        if own and name=='MixChoice per sample': continue # which refuses it
        learn.loss_func = loss
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            fit(learn, 2, cbs=(check:=Check(name, one)))
        said = [str(o.message) for o in said if 'lambda' in str(o.message)]
        assert len(said)==own and all(': One lambda is drawn for each batch' in o and loss.__name__ in o for o in said)
        assert check.seen==4 and learn.loss_func is loss
        assert len(learn.mixer.lam)==(1 if own else bs)
    check,other = Check(name),nn.CrossEntropyLoss(label_smoothing=0.2)
    def before_epoch(self):
        if self.epoch==1: self.learn.loss_func,check.loss1 = other,smooth
    learn.loss_func = nn.CrossEntropyLoss()
    fit(learn, 2, cbs=[check,Callback(before_epoch=before_epoch)])
    assert check.seen==4

class Cast(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype
    def forward(self, x): return x.to(self.dtype)

class Ledger(Callback):
    "Note the loss of each training batch as the definition has it, and see that it is the loss wherever one asks"
    order,run_valid = 1000,False
    def __init__(self): self.all,self.seen = [],0
    def before_fit(self): self.m = self.learn.mixer
    def after_loss(self):
        y,lam = Y[self.iter*bs:][:bs],self.m.lam.double()
        own,other = (F.cross_entropy(self.pred.detach().double(), o, reduction='none') for o in (y,y[self.m.perm]))
        self.all.append((lam*own + (1-lam)*other).mean())
        self.same()
    def same(self):
        for o in (self.learn.loss,self.learn.loss_grad): torch.testing.assert_close(o.detach().double(), self.all[-1], atol=1e-6, rtol=1e-6)
        self.seen += 1
    before_backward = after_backward = before_step = after_batch = same

@pytest.mark.parametrize('dtype', [torch.float32,torch.bfloat16,torch.float16])
def test_loss(dtype):
    "The loss of each batch is `lam*l(own) + (1-lam)*l(partner)` to six digits, in training and on record, whatever the predictions' dtype"
    for name in MIXERS:
        kind = kind_of(name)
        learn = get_learn([mixer(name),ledger:=Ledger()], kind, nn.Sequential(*net(kind), Cast(dtype)))
        fit(learn)
        assert ledger.seen==5*2 and len(ledger.all)==2
        a,b = [o.item() for o in ledger.all]
        assert learn.recorder.losses==pytest.approx([a,(.98*a+b)/1.98], rel=1e-5) # fastai smooths them so
        assert learn.recorder.values[0][0]==learn.recorder.losses[-1]

# Defaults, sizes

ALWAYS = dict(stack_y=None, per_sample=None, pair=None, p=1., start=0., end=1., inputs=None, generator=None)
MIX = dict(dedup=True, stack_x=False)
CUT = dict(length=None, minmax=None, uniform=False)
MIXUP,MANIFOLD = dict(alpha=.4) | MIX | ALWAYS,dict(alpha=1., layers=None, mix_input=True, dedup=True) | ALWAYS
CUTMIX,FMIX = dict(alpha=1., dedup=False, dims=None, masks=None) | CUT | ALWAYS,dict(alpha=1., decay=3., dedup=False, dims=None, masks=None) | ALWAYS
OUTPUT,RESIZE = {k:v for k,v in MIXUP.items() if k not in ('inputs','stack_x')},dict(lo=.1, hi=.8, dims=None, masks=None) | ALWAYS
DRAWN = dict(y=None, lam=None, perm=None, per_sample=True, generator=None)
DEFAULTS = [(fm.MixUp, MIXUP), (Learner.mixup, MIXUP), (fm.CutMix, CUTMIX), (Learner.cutmix, CUTMIX), (fm.FMix, FMIX), (Learner.fmix, FMIX),
    (fm.ResizeMix, RESIZE), (Learner.resizemix, RESIZE), (fm.ManifoldMixUp, MANIFOLD), (Learner.manifold_mixup, MANIFOLD),
    (fm.OutputMixUp, OUTPUT), (Learner.output_mixup, OUTPUT), (fm.Mixer, ALWAYS), (fm.MixChoice, dict(weights=None, per_sample=False)),
    (fm.mixup_batch, dict(alpha=.4, dedup=True) | DRAWN), (fm.cutmix_batch, dict(alpha=1., boxes=None, dims=None) | CUT | DRAWN),
    (draw_cut, dict(alpha=1., dedup=False, device=None, generator=None) | CUT), (fourier_masks, dict(decay=3., generator=None))]

@pytest.mark.parametrize('f,want', DEFAULTS, ids=lambda o: getattr(o, '__qualname__', ''))
def test_defaults(f, want):
    "What a call means without further arguments: a mixer has the settings that it obeys, and no others"
    assert {k:p.default for k,p in inspect.signature(f).parameters.items() if p.default is not p.empty}==want

def test_cut_masks():
    "CutMix pastes a mask with its image, and refuses inputs of other sizes in words"
    x = torch.rand(8, 1, 6, 6)
    y = (x[:,0]>.5).long()
    learn = Learner(DataLoaders.from_dsets(list(zip(x, y)), [], bs=8), nn.Conv2d(1, 2, 1), loss_func=nn.CrossEntropyLoss(), cbs=fm.CutMix())
    def after_pred(self): assert torch.equal((self.x[:,0]>.5).long(), self.y) and not torch.equal(self.x, x)
    fit(learn, cbs=Callback(after_pred=after_pred))
    two = DataLoaders.from_dsets(list(zip(x, x[...,:4], y)), [], bs=8)
    two.n_inp = 2
    with pytest.raises(ValueError, match=r'sizes \(6, 6\) to cut.*but got torch.float32 of shape \(8, 1, 6, 4\): name the inputs to mix'):
        fit(Learner(two, nn.Conv2d(1, 2, 1), loss_func=nn.CrossEntropyLoss(), cbs=fm.CutMix()))

class Batches(list): dataset = None

class Parts(nn.Module):
    "Several predictions, of which only the floats with a row for each sample are to be mixed"
    def __init__(self, lone=False):
        super().__init__()
        self.lin,self.lone = nn.Linear(3, 2),lone
    def forward(self, none, x, *rest): return self.lin(x).mean(0) if self.lone else (self.lin(x), len(x), x.argmax(1), self.lin.bias, None)

@pytest.mark.parametrize('p', (0.,1.))
def test_output_parts(p):
    "OutputMixUp mixes what there is for each sample, leaves the rest of the predictions alone, and refuses predictions without any"
    x,y = torch.rand(8, 3),torch.arange(8)%2
    batch = None,x,torch.tensor(2.),'a',torch.rand(8, 1),y
    dls = DataLoaders(Batches([batch]), Batches([]))
    dls.n_inp = 5
    def loss_func(pred, y, reduction='mean'): return F.cross_entropy(pred[0], y, reduction=reduction)
    learn = Learner(dls, Parts(), loss_func=loss_func, cbs=fm.OutputMixUp(p=p))
    def after_loss(self):
        m,plain = self.learn.output_mix_up,self.model(None, x)
        want = m.lam[:,None]*plain[0] + (1-m.lam[:,None])*plain[0][m.perm] if p else plain[0]
        torch.testing.assert_close(self.pred[0], want)
        assert self.pred[1]==8 and torch.equal(self.pred[2], plain[2]) and self.pred[3] is self.model.lin.bias and self.pred[4] is None
    fit(learn, cbs=Callback(after_loss=after_loss))
    if p:
        with pytest.raises(ValueError, match=r'Expected floating point predictions for 8 samples, but got torch.float32 of shape \(2,\)$'):
            fit(Learner(dls, Parts(True), loss_func=loss_func, cbs=fm.OutputMixUp()))

class OneHot(nn.Module):
    "A model of tokens without an embedding"
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(20, n_out)
    def forward(self, x): return self.lin(F.one_hot(x, 20).float()).mean(1)

def test_tokens_nowhere():
    "Indices that come to no embedding are an error that says which, in the first batch; the layer that it asks for is mixed"
    with pytest.raises(ValueError, match='Expected a place in the model where input 0 can be mixed, behind embeddings or later'):
        fit(get_learn(fm.MixUp(), 'tokens', OneHot()))
    def after_pred(self):
        if not self.training: return
        m,e = self.learn.mixer,F.one_hot(self.x, 20).float()
        lam = m.lam[:,None,None]
        torch.testing.assert_close(self.pred, self.model.lin(lam*e + (1-lam)*e[m.perm]).mean(1))
        seen.append(self.pred)
    seen = []
    fit(get_learn([fm.ManifoldMixUp(layers='lin', mix_input=False),Callback(after_pred=after_pred)], 'tokens', OneHot()))
    assert len(seen)==2

# A choice of mixers

@pytest.mark.parametrize('last', (fm.MixUp(8.),fm.CutMix()))
def test_choice_masks(last):
    "Masks of another size than their image have their losses mixed where nothing is pasted, and are refused where something would be"
    x,y = torch.rand(8, 1, 8, 6),torch.randint(2, (8, 3, 6))
    dls,model = DataLoaders(Batches([(x,y)]), Batches([])),nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d((2, 1), stride=(3, 1)))
    learn = Learner(dls, model, loss_func=nn.CrossEntropyLoss(), cbs=[fm.MixChoice(fm.MixUp(per_sample=True), last, per_sample=True)])
    if isinstance(last, fm.CutMix):
        for o in (learn,Learner(dls, model, loss_func=nn.CrossEntropyLoss(), cbs=last)):
            with pytest.raises(ValueError, match=r'sizes \(8, 6\) of the input'): fit(o)
        return
    def after_loss(self):
        m,(one,other) = self.learn.mixer,[F.cross_entropy(self.pred, t, reduction='none').mean((1, 2)) for t in (y,y[self.learn.mixer.perm])]
        assert len(m.lam)==8
        torch.testing.assert_close(self.learn.loss, (m.lam*one + (1-m.lam)*other).mean())
    fit(learn, cbs=Callback(after_loss=after_loss))

def test_choice_tokens():
    "Two ways to mix tokens, drawn for each sample: not at all, and nearly half and half"
    def after_pred(self):
        if not self.training: return
        m,e = self.learn.mixer,self.model[0].weight[self.x]
        lam = m.lam[:,None,None]
        torch.testing.assert_close(self.pred, self.model[1:](lam*e + (1-lam)*e[m.perm]))
        picks.update((m.lam==1).tolist())
    picks,m = set(),fm.MixChoice(fm.MixUp(0), fm.MixUp(8.), per_sample=True)
    fit(get_learn([m,Callback(after_pred=after_pred)], 'tokens'), 2)
    assert picks=={False,True}

# Validation in the middle

keep = 'dl iter n_iter xb yb pred loss loss_grad epoch train_iter pct_train'.split()
class ValidateInside(Callback):
    "Validate after each training batch, as those do who watch closely, and put back what that changes"
    order,run_valid = 55,False
    def __init__(self, how): self.how,self.seen = how,[]
    def after_batch(self):
        learn,kept = self.learn,{k:getattr(self.learn, k) for k in keep}
        if self.how=='get_preds': self.seen.append(learn.get_preds(inner=True)[0])
        if self.how=='epoch':
            learn._do_epoch_validate()
            self.seen.append(learn.pred)
        if self.how=='validate': self.seen.append(learn.validate(cbs=Callback())[-1])
        want = clean(learn, learn.model)(*next(iter(learn.dls.valid))[:1])
        if self.how=='validate': assert self.seen[-1]==(want.argmax(1)==next(iter(learn.dls.valid))[1]).float().mean()
        else: assert torch.equal(self.seen[-1], want)
        for k,v in kept.items(): setattr(learn, k, v)
        learn.training = True
        learn.model.train()

@pytest.mark.parametrize('how', ['get_preds','epoch','validate'])
def test_validation_inside(how):
    "It is not mixed, and training goes on as if it had not been"
    for name in MIXERS:
        runs = []
        for cbs in ([],[inside:=ValidateInside(how)]):
            learn = get_learn([mixer(name, generator=generator()),check:=Check(name),*cbs], kind_of(name), metrics=accuracy)
            runs.append(weights(fit(learn, 2)))
            assert check.seen==4 and not hooks(learn.model)
        assert len(inside.seen)==4 and torch.equal(*runs), name

# A second look

class Look(Callback):
    "At each event after the model has run, run it again on this batch as it is and as it was"
    run_valid = False
    def __init__(self, order): self.order,self.seen = order,0
    def look(self):
        model = clean(self.learn, self.model)
        with torch.no_grad():
            same = DATA[kind_of_data(self.learn)][self.iter*bs:][:bs]
            for x in (*self.xb, self.x.clone(), same): assert torch.equal(self.model(x), model(x))
        self.seen += 1
    after_pred = after_loss = before_backward = after_backward = before_step = after_step = after_batch = look

@pytest.mark.parametrize('name', MIXERS)
def test_second_look(name):
    "What another callback asks of the model within a batch is not mixed, and training goes on as if it had not been asked"
    one,two = Look(-1000),Look(1000)
    assert same_run(fit(get_learn([mixer(name),one,two], kind_of(name)), 2), fit(get_learn(mixer(name), kind_of(name)), 2))
    assert one.seen==two.seen==7*4

class CutShort(Callback):
    "Cancel each batch before the model has run, and look at its predictions then"
    order = 100 # when the mixer has tried the model
    def before_fit(self):
        self.seen,self.on = [],False
        self.model[-1].register_forward_pre_hook(self._cancel)
    def before_batch(self): self.on = self.training
    def _cancel(self, *args):
        if self.on: raise CancelBatchException
    def after_cancel_batch(self): self.on = False
    def after_batch(self):
        if self.training: self.seen.append(self.model(DATA[self.kind][:bs]).detach())

@pytest.mark.parametrize('name', MIXERS)
def test_look_after_cancel(name):
    "What the model is asked for after a batch that was cancelled within it is not mixed"
    cut = CutShort()
    cut.kind = kind_of(name)
    fit(get_learn([mixer(name),cut], cut.kind), 4)
    want = net(cut.kind)(DATA[cut.kind][:bs]).detach()
    assert len(cut.seen)==8 and all(torch.equal(o, want) for o in cut.seen)

# Copies

class Copies(Callback):
    "Copy the model in all ways, at an event in the middle of training"
    def __init__(self, at):
        self.copies = []
        setattr(self, at, self.copy)
    def copy(self):
        if self.copies or hasattr(self, 'before_epoch') or self.iter!=1 and not hasattr(self, 'after_epoch'): return
        self.copies = [deepcopy(self.model),pickle.loads(pickle.dumps(self.model)),AveragedModel(self.model).module]
        self.size = len(pickle.dumps(self.model))
        b = io.BytesIO()
        torch.save(self.model, b)
        b.seek(0)
        self.copies.append(torch.load(b, weights_only=False))

@pytest.mark.parametrize('at', ['before_batch','after_pred','after_batch','after_epoch'])
def test_copies(at):
    "A copy of the model that is made in training is a model of its own: it holds nothing of the Learner, and does not mix"
    for name in MIXERS:
        kind = kind_of(name)
        learn = fit(get_learn([mixer(name),cb:=Copies(at)], kind), 2)
        most = 500 if name=='MixChoice of tokens' else 300 # for hooks that do nothing, there of two kinds
        assert len(cb.copies)==4 and cb.size<len(pickle.dumps(net(kind)))+most
        x = DATA[kind][:bs]
        for o in cb.copies: assert torch.equal(o.train()(x), clean(learn, o)(x))
        a,b = (fit(get_learn(mixer(name), kind, m)) for m in (cb.copies[0],clean(learn, cb.copies[0])))
        assert same_run(a, b) and torch.equal(a.model.eval()(x), b.model(x))

# Predictions, and what is written and read

@pytest.fixture(scope='module')
def pictures():
    "fastai's own loaders for little pictures in two classes, augmented in training"
    x = np.random.default_rng(0).integers(0, 255, (12,8,8), dtype=np.uint8)
    block = DataBlock((ImageBlock(PILImageBW),CategoryBlock), get_x=lambda i: x[i], get_y=lambda i: 'ab'[i%2],
        splitter=IndexSplitter(range(8,12)), batch_tfms=[Flip(), Brightness()])
    return lambda **kw: block.dataloaders(range(12), bs=4, num_workers=0, device='cpu', **kw)

def picture_learn(dls, m, path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(1,4,3,padding=1), nn.ReLU(), nn.Conv2d(4,4,3,padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4*64,2))
    return Learner(dls, model, loss_func=CrossEntropyLossFlat(), cbs=m, path=path, lr=1e-2, metrics=accuracy)

def drawn(f):
    "Titles of the pictures that `f` shows"
    plt.close('all')
    f()
    return [o.get_title() for o in plt.gcf().axes]

def confused(learn): return ClassificationInterpretation.from_learner(learn).confusion_matrix().tolist()
def lossy(learn): return numbers(*ClassificationInterpretation.from_learner(learn).top_losses(3))
ASK = dict(validate=lambda l: [*l.validate()], predict=lambda l: [o.tolist() for o in l.predict(l.dls.valid_ds.items[0])[1:]],
    get_preds=lambda l: numbers(*l.get_preds(with_input=True, with_decoded=True, with_loss=True)), confused=confused, lossy=lossy,
    training_set=lambda l: numbers(*l.get_preds(ds_idx=0)), test_dl=lambda l: numbers(l.get_preds(dl=l.dls.test_dl(range(3)))[0]),
    tta=lambda l: numbers(*l.tta(n=2)), show_results=lambda l: drawn(lambda: l.show_results(shuffle=False)),
    summary=lambda l: str(l.summary()).split('Callbacks')[0])

def ask(learn, f):
    seed_all()
    with quiet(learn): return f(learn)

def seed_all():
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)

@pytest.mark.parametrize('name', images)
def test_shown(name, pictures, tmp_path):
    "Whatever is asked of a Learner with a mixer is answered as without one, and asking does no harm"
    seed_all()
    dls = pictures()
    learn = fit(picture_learn(dls, mixer(name), tmp_path))
    bare = picture_learn(dls, None, tmp_path)
    bare.model = learn.model
    bare.create_opt()
    for what,f in ASK.items(): assert (res:=ask(learn, f))==ask(bare, f) and res, what
    assert not hooks(learn.model) and not torch.equal(weights(learn), weights(fit(learn)))

def load(path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return load_learner(path)

@pytest.mark.parametrize('name', images)
def test_export(name, pictures, tmp_path):
    "An exported Learner predicts the same, and trains on as the one it was made of, mixed"
    seed_all()
    dls = pictures()
    learn = fit(picture_learn(dls, mixer(name), tmp_path))
    learn.export('done.pkl')
    back = load(tmp_path/'done.pkl')
    assert held(learn.mixer) and not held(back.mixer) # the last batch stays behind
    assert repr(back.mixer)==repr(learn.mixer) and {*vars(back)}=={*vars(learn)}
    with quiet(learn),quiet(back):
        for a,b in zip(learn.predict(0), back.predict(0)): assert str(a)==str(b)
    back.dls = dls
    runs = []
    for o in (learn,back):
        seed_all()
        dls.train.rng.seed(0)
        runs.append(weights(fit(o, 2, reset_opt=True)))
    assert torch.equal(*runs) and not hooks(back.model)

class ExportInside(Callback):
    order = 70
    def after_epoch(self):
        if self.epoch==0: self.learn.export('inside.pkl')

@pytest.mark.parametrize('name', MIXERS)
def test_export_inside(name, tmp_path):
    "A Learner that is exported in the middle of training predicts and trains as any other, with nothing left of that training in it"
    kind = kind_of(name)
    def _x(i): return DATA[kind][i]
    ds = Datasets(range(12), [[_x],[lambda i: i%3]], splits=[range(8),range(8,12)])
    dls = ds.dataloaders(bs=bs, device='cpu', shuffle=False, num_workers=0)
    learn = fit(get_learn([mixer(name),ExportInside()], kind, path=tmp_path, dls=dls), 2)
    assert not hooks(learn.model) and 'remove_cbs' not in vars(learn)
    back = load(tmp_path/'inside.pkl')
    assert not held(back.mixer)
    back.remove_cb(ExportInside)
    twin = get_learn(mixer(name), kind, clean(learn, back.model), dls=dls)
    back.dls = dls
    for o in (back,twin):
        with quiet(o): o.get_preds()
    assert torch.equal(back.get_preds()[0], twin.get_preds()[0]) and same_run(fit(back, 2, reset_opt=True), fit(twin, 2))
    assert {*vars(back)}<={*vars(learn)}

@pytest.mark.parametrize('name', MIXERS)
def test_save(name, tmp_path):
    "`save` and `load` in the middle: training goes on to the same end, with the same file as without a mixer"
    kind = kind_of(name)
    one = fit(get_learn(mixer(name), kind, path=tmp_path))
    one.save('half')
    state = torch.load(tmp_path/'models/half.pth', weights_only=False)
    assert {*state}=={'model','opt'} and [*state['model']]==[*net(kind).state_dict()]
    fit(one, seed=1)
    two = fit(get_learn(mixer(name), kind, path=tmp_path).load('half'), seed=1)
    assert same_run(one, two)

# Text

def text_model(task):
    config = dict(emb_sz=8, n_hid=8, n_layers=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if task=='classifier': return get_text_classifier(AWD_LSTM, 21, n_out, seq_len=3, config=awd_lstm_clas_config|config, lin_ftrs=[6])
        return get_language_model(AWD_LSTM, 21, config=awd_lstm_lm_config|config)

class Regular(Callback):
    "Compare the regularised loss with its definition"
    order,run_valid,seen = 1000,False,0
    def before_backward(self):
        out,raw = self.rnn.out,self.rnn.raw_out
        torch.testing.assert_close(self.loss_grad, self.loss + 2*out.pow(2).mean() + (raw[:,1:]-raw[:,:-1]).pow(2).mean())
        self.seen += 1

@pytest.mark.parametrize('task', ['classifier','language model'])
def test_rnn(task):
    "AWD-LSTM with its callbacks: the loss is mixed, and what regularises it is added once"
    x = DATA['tokens']+1
    y = Y if task=='classifier' else x.roll(-1, 1)
    def _fit(*cbs):
        metric = accuracy if task=='classifier' else Perplexity()
        return fit(get_learn(cbs, x=x, y=y, model=text_model(task), loss_func=CrossEntropyLossFlat(), metrics=metric), 2)
    for m in (fm.MixUp,fm.ManifoldMixUp):
        learns = []
        for turn in (1,-1):
            cbs = [*rnn_cbs(2., 1.),check:=Check('MixUp of tokens'),regular:=Regular(),m()]
            learns.append(_fit(*cbs[::turn]))
            assert check.seen==regular.seen==4 and not hooks(learns[-1].model)
        assert same_run(*learns)
    assert same_run(_fit(*rnn_cbs(2., 1.)), _fit(*rnn_cbs(2., 1.), fm.MixUp(0, generator=generator())), 1e-5)

# And besides

def test_all_mixers():
    "No public mixer is missing in these tests"
    public = {o for o in vars(fm).values() if isinstance(o, type) and issubclass(o, fm.Mixer)}
    assert public=={type(mixer(o)) for o in MIXERS} | {fm.Mixer}

class Checkpointed(nn.Module):
    "Saves memory by running its model again in the backward pass"
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, x): return checkpoint(self.model, x, use_reentrant=False)

WRAPS = dict(compiled=partial(torch.compile, backend='eager'), checkpointed=Checkpointed, parallel=nn.DataParallel)
@pytest.mark.parametrize('name', ['MixUp of tokens','CutMix','ManifoldMixUp','ManifoldMixUp of tokens'])
@pytest.mark.parametrize('wrap', WRAPS)
def test_wrapped(wrap, name):
    "A model that is compiled, or runs twice, or is spread over devices, trains as it does bare, fit after fit"
    kind,pair = kind_of(name),[]
    for model in (net(kind),WRAPS[wrap](net(kind))):
        learn = get_learn([mixer(name, p=.6),check:=Check(name)], kind, model)
        for i in range(3): fit(learn, seed=i)
        pair.append(weights(learn))
        assert check.seen==6 and 0<check.plain<6 and not hooks(model)
    torch.testing.assert_close(*pair, atol=1e-6, rtol=1e-5)

@pytest.mark.parametrize('name', [o for o in MIXERS if 'anifold' in o or 'tokens' in o])
def test_compiled_bare(name):
    "A compiled model that runs without hooks now and then, since not every batch is mixed in it, trains as it does bare"
    kind = kind_of(name)
    one,two = (get_learn(mixer(name, p=.5), kind, model) for model in (net(kind),torch.compile(net(kind), backend='eager')))
    for i in range(8,24):
        for o in (one,two): fit(o, seed=i)
        if i%2: assert torch.allclose(two.get_preds()[0], one.get_preds()[0], atol=1e-6)
    torch.testing.assert_close(weights(one), weights(two), atol=1e-6, rtol=1e-5)

def test_train_metrics():
    "Metrics of training batches are those of the predictions for the mixed batch on each sample's own label"
    for name in MIXERS:
        seen = []
        def after_batch(self):
            if self.training: seen.append(accuracy(self.pred, Y[self.iter*bs:][:bs]))
        learn = get_learn(mixer(name), kind_of(name), metrics=accuracy)
        learn.recorder.train_metrics = True
        fit(learn, cbs=Callback(after_batch=after_batch))
        assert learn.recorder.values[0][1]==pytest.approx(sum(seen).item()/2)

class Named(nn.Module):
    "A model whose attributes are called as those of a mixer are"
    def __init__(self, kind, m):
        super().__init__()
        self.body = net(kind)
        for cls in type(m).__mro__:
            for k,v in (vars(cls)|vars(m)).items():
                if k[0]!='_' and not callable(v) and not hasattr(self, k) and k not in vars(Callback): setattr(self, k, 1)
        assert self.alpha==self.lam==self.perm==self.boxes==self.inputs==1
    def forward(self, x): return self.body(x)

@pytest.mark.parametrize('name', MIXERS)
def test_names(name):
    "A model's attributes and a mixer's keep out of each other's way, without a word; a name of the Learner's is still warned of"
    kind = kind_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        one,two = fit(get_learn(m:=mixer(name), kind, Named(kind, m))),fit(get_learn(mixer(name), kind))
    if 'Manifold' not in name: assert same_run(one, two) # other places are found in another model
    with pytest.warns(UserWarning, match='shadowing an attribute .xb.'): one.mixer.xb = 1

def test_one_mixer():
    "A second mixer is refused before anything is trained, and the first goes on"
    for a,b in itertools.product(MIXERS, ('MixUp','CutMix','MixChoice')):
        learn = get_learn(mixer(a), kind_of(a))
        before = weights(learn)
        with pytest.raises(ValueError, match='use MixChoice'): fit(learn, cbs=mixer(b))
        assert torch.equal(weights(learn), before) and len(learn._grab_cbs(fm.Mixer))==1
    assert not torch.equal(weights(fit(learn)), before)

@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize('mode', ['fp16','bf16'])
def test_mixed_precision(mode):
    "fastai's own mixed precision, on a GPU: batches and losses as they should be, and the loss in full precision"
    for name in MIXERS:
        check = Check(name)
        check.tol = 1e-3
        def before_backward(self): assert self.learn.loss.dtype==torch.float32
        dls = get_dls(DATA[kind_of(name)], Y)
        dls.device = torch.device('cuda')
        learn = get_learn([mixer(name),check,MixedPrecision(amp_mode=mode)], kind_of(name), dls=dls)
        fit(learn, 2, cbs=Callback(before_backward=before_backward))
        assert check.seen==4 and not hooks(learn.model)
