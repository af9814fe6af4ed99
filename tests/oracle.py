"""A fit as seen from outside: each batch as it was drawn, as the model got it, and what became of it

Whatever is right is computed slowly, from plain calls of the model and of the loss. Nothing here knows how fastmix computes."""
import re, tempfile, warnings, torch
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from fastai.basics import Callback, DataLoaders, Learner, SGD
import fastmix
from fastmix.all import Mixer

PLACES = 'stack_x','layers','MixHere','inputs',r'\bmask' # ways out that a message about a place may name

# Fits

class Ready(list):
    "Batches that lie ready, in this order"
    dataset = None

def cut(bs, *ts):
    "Batches of `bs` rows of the tensors (or dicts of tensors) `ts`"
    n = len(tree_leaves(ts)[0])
    return [tuple(tree_map(lambda t: t[i:i+bs], o) for o in ts) for i in range(0, n, bs)]

def clone(o):
    "A copy that shares no memory with `o`"
    return tree_map(lambda t: t.detach().clone() if isinstance(t, Tensor) else t, o)

class Before(Callback):
    "Keep each batch as it was drawn"
    order,run_valid = -1000,False
    def __init__(self, log): self.log = log
    def before_batch(self):
        if self.log.late: self.log.late(self.learn.model, self.iter)
        self.log.own = clone(self.xb),self.yb

class After(Callback):
    "Keep what became of it"
    order,run_valid = 10**6,False
    def __init__(self, log): self.log = log
    def before_backward(self):
        x,y = self.log.own
        n = next(len(t) for t in tree_leaves((y,x)) if isinstance(t, Tensor))
        m = next((o for o in self.learn.cbs if isinstance(o, Mixer)), None)
        mixed = m is not None and m.lam is not None
        lam,perm = (m.lam.detach().reshape(-1),m.perm.clone()) if mixed else (torch.ones(1),torch.arange(n))
        self.log.batches.append(SimpleNamespace(x=x, y=y, y1=tree_map(lambda t: t[perm], y), given=clone(self.xb), pred=clone(self.pred),
            loss=self.learn.loss.detach().clone(), lam=lam.expand(n).clone(), n_lam=len(lam), perm=perm, mixed=mixed,
                loss_func=self.loss_func,
            n_said=len(self.log.warned)))

def quiet_fit(learn, epochs=1, lr=0., **kw):
    with learn.no_bar(),learn.no_logging(): learn.fit(epochs, lr, **kw)
    return learn

def learner(model, batches, loss, *cbs, n_inp=1):
    "A Learner on ready batches"
    dls = DataLoaders(Ready(batches), Ready(batches[:1]))
    dls.n_inp = n_inp
    return Learner(dls, model, loss_func=loss, opt_func=SGD, path=tempfile.gettempdir(), cbs=list(cbs))

def watch(model, batches, loss, *cbs, n_inp=1, epochs=1, lr=0., late=None, plain=None):
    """Train, at learning rate 0 so that `model` stays as it is, and return what was seen: `batches`, warnings as `warned`, the `error`
    that stopped it.

    `late(model, i)` changes the model before batch `i`, as training would. `plain` is a model like it, for plain predictions; by default
    a copy."""
    log = SimpleNamespace(batches=[], error=None, late=late, plain=deepcopy(model) if plain is None else plain)
    log.learn = learner(model, clone(batches), loss, Before(log), After(log), *cbs, n_inp=n_inp)
    with warnings.catch_warnings(record=True) as log.warned:
        warnings.simplefilter('always')
        try: quiet_fit(log.learn, epochs, lr)
        except Exception as e: log.error = e
    return log

def with_plain(log):
    "The batches seen, one by one, with what the model says of the plain inputs in training mode as `plain`, and that model as `model`"
    model = log.plain.train()
    for i,b in enumerate(log.batches):
        if log.late: log.late(model, i)
        b.model = model
        with torch.no_grad(): b.plain = clone(model(*clone(b.x)))
        yield b

# Fits in which each sample becomes its partner, or stays what it is

def with_lam(cls, value):
    "The mixer `cls` with every lambda `value`: at 0 sample `i` has to be predicted as `perm[i]` is, whatever the model and the place"
    def draw(self, x, b):
        cls.draw(self, x, b)
        b.lam = torch.full_like(b.lam, value)
    return type(cls.__name__, (cls,), dict(draw=draw))

# What was said

def message(e):
    "What an error says, without the line that fastai puts before it"
    return re.sub(r'Exception occured in `\w+` when calling event `\w+`:\s*', '', str(e))

def is_ours(path):
    "Does a file belong to fastmix?"
    return Path(fastmix.__file__).parent in Path(path).parents

def raised_by_us(e):
    t = e.__traceback__
    while t is not None and t.tb_next is not None: t = t.tb_next
    return t is not None and is_ours(t.tb_frame.f_code.co_filename)

def names(text, words): return any(re.search(w, text, re.I) for w in words)

def is_refusal(e, words=PLACES):
    "Is the error `e` a refusal in words, one of `words` among them?"
    return isinstance(e, (ValueError,TypeError)) and raised_by_us(e) and names(message(e), words)

def told(warned):
    "Texts of the warnings that came from fastmix"
    of_others = ('torch','transformers','timm','monai','peft','kornia','tsai','torchvision','segmentation_models_pytorch')
    return [str(o.message) for o in warned if issubclass(o.category, UserWarning) and not set(of_others)&set(Path(o.filename).parts)]

def train(model, batches, mixer, *cbs, loss=nn.CrossEntropyLoss(), **kw):
    "The batches that were trained on, the error that ended the fit, what was said, and the Learner"
    log = watch(model, batches, loss, mixer, *cbs, **kw)
    return log.batches,log.error and message(log.error),told(log.warned),log.learn

# Right values

def near(got, want, tol=1e-3):
    "Are the predictions `got` those of `want`? By `tol` of the spread between the samples, so that a constant does not hide a difference"
    a,b = ([t.detach().double() for t in tree_leaves(o) if isinstance(t, Tensor) and t.is_floating_point()] for o in (got,want))
    if [t.shape for t in a]!=[t.shape for t in b]: return False
    return all(float((s-t).norm()) <= tol*float((t-t.mean(0)).norm())+2e-6*float(t.norm())+1e-12 for s,t in zip(a,b))

def rows(o, perm):
    "Rows `perm` of all tensors in `o` that have as many rows"
    return tree_map(lambda t: t[perm] if isinstance(t, Tensor) and t.ndim and len(t)==len(perm) else t, o)

def lerp(b, t):
    "`t`, an entry for each sample, mixed as the batch `b` was"
    lam = b.lam.view(-1, *[1]*(t.ndim-1))
    return lam*t + (1-lam)*t[b.perm]

def swapped(b):
    "What a model must say where every lambda is 0"
    return [rows(b.plain, b.perm)]

def at(b, t):
    "The plain predictions `t`, interpolated as the batch was: right for models that are affine in what is mixed"
    return tree_map(lambda o: lerp(b, o) if isinstance(o, Tensor) and o.ndim and len(o)==len(b.perm) else o, t)

def verdict(log, right=swapped, words=PLACES, tol=1e-3):
    """'right' if each batch's prediction is one of `right(batch)` and its loss that of its labels; 'refused', 'refused later' or 'warned' if an error
    or a warning said so no later than the first wrong batch; 'plain' if no batch was mixed; or what is wrong

    The loss is looked at where every lambda is 0 or the batch is plain: there it is the plain loss on one set of labels."""
    for k,b in enumerate(with_plain(log)):
        one_set = b.y1 if bool((b.lam==0).all()) else b.y if bool((b.lam==1).all()) else None
        wants = right(b) if b.mixed else [b.plain]
        if not any(near(b.pred, o, tol) for o in wants): why = 'the prediction is not that of the mixture that the labels name'
        elif one_set is not None and not torch.isclose(b.loss, b.loss_func(b.pred, *one_set).detach(), rtol=1e-4, atol=1e-6):
            why = 'the loss is that of other labels'
        else: continue
        if names(' '.join(told(log.warned[:b.n_said])), words): return 'warned'
        return f'wrong in batch {k}: {why}, and nothing was said'
    if log.error is not None:
        if is_refusal(log.error, words): return 'refused'
        if 'the model or the loss has changed since' in message(log.error): return 'refused later'
        return f'stopped in batch {len(log.batches)} by {type(log.error).__name__}: {message(log.error)[:300]}'
    if not log.batches: return 'wrong: nothing was trained'
    return 'right' if any(b.mixed for b in log.batches) else 'plain'
