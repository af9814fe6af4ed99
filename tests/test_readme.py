"The README's table of what fastai's own mixers do and what these do, row by row"
import itertools, re
from pathlib import Path
import fastai, matplotlib, numpy as np, pytest, torch, torch.nn.functional as F
from fastai.basics import (BCEWithLogitsLossFlat, Callback, CrossEntropyLossFlat, DataLoaders, LabelSmoothingCrossEntropyFlat, Learner,
    MSELossFlat)
from fastai.callback import mixup as theirs
from fastcore.nbio import read_nb
from PIL import Image
from torch import nn
import fastmix.all as ours

n = 48
X,y = torch.randn(n, 1, 8, 8),torch.arange(n)%10
hot = F.one_hot(y, 10).float()
tokens,signal,volume,mask = torch.randint(9, (n,64)),X.view(n,1,64),X.view(n,1,4,4,4),(X[:,0]>0).long()

def get_dls(xs, ys, bs=16):
    class Samples(list): n_inp = len(xs)
    data = Samples(zip(*xs, *ys))
    return DataLoaders.from_dsets(data, data, bs=bs, num_workers=0, device='cpu')

def flat_net(): return nn.Sequential(nn.Flatten(), nn.Linear(64,10))
def token_net(): return nn.Sequential(nn.Embedding(9,4), nn.Flatten(), nn.Linear(256,10))
def mask_net(): return nn.Conv2d(1,2,3,padding=1)

class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.net,self.lin = flat_net(),nn.Linear(3,10)
    def forward(self, a, b): return self.net(a) + self.lin(b)

class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.net,self.lin = flat_net(),nn.Linear(10,1)
    def forward(self, x): return (o := self.net(x)),self.lin(o)[:,0]

def two_losses(pred, y, z, reduction='mean'):
    return F.cross_entropy(pred[0], y, reduction=reduction) + F.mse_loss(pred[1], z, reduction=reduction)

def my_loss(pred, y): return F.cross_entropy(pred, y)

def fit(learn, *cbs):
    with learn.no_logging(): learn.fit(1, 1e-3, cbs=cbs)

def train(cb, loss_func=None, xs=(X,), ys=(y,), net=flat_net, check=(), bs=16):
    fit(Learner(get_dls(xs, ys, bs), net(), loss_func=loss_func or CrossEntropyLossFlat()), cb, *check)

class Wrong(Exception): pass

class Exact(Callback):
    "Is the loss that of both targets, from the losses of single samples, divided by their mixed weight?"
    order,run_valid = 999,False
    def __init__(self, cb, share, **kwargs): self.cb,self.share,self.kwargs = cb,share,kwargs
    def both(self, f):
        lam = torch.as_tensor(self.cb.lam).expand(len(self.y))
        y1 = self.cb.yb1[0] if isinstance(self.cb, theirs.MixHandler) else self.y[self.cb.perm]
        return (lam*f(self.y) + (1-lam)*f(y1)).sum()
    def after_loss(self):
        want = self.both(lambda t: F.cross_entropy(self.pred, t, reduction='none', **self.kwargs)) / self.both(self.share)
        if not torch.isclose(self.learn.loss, want): raise Wrong('wrong loss')

def weighted(cb):
    w = torch.arange(1.,11)
    train(cb, CrossEntropyLossFlat(weight=w), check=[Exact(cb, lambda t: w[t], weight=w)])

def ignoring(cb): train(cb, CrossEntropyLossFlat(ignore_index=3), check=[Exact(cb, lambda t: (t!=3).float(), ignore_index=3)])

class Pasted(Callback):
    "Is the loss that of masks cut like their images?"
    order,run_valid = 999,False
    def after_loss(self):
        if not torch.isclose(self.learn.loss, F.cross_entropy(self.pred, (self.x[:,0]>0).long())): raise Wrong('wrong loss')

class Stop(Callback):
    run_valid = False
    def after_pred(self): raise KeyboardInterrupt

def interrupted(cb):
    learn = Learner(get_dls([X], [y]), flat_net(), loss_func=CrossEntropyLossFlat())
    with pytest.raises(KeyboardInterrupt): fit(learn, cb, Stop())
    fit(learn, cb)

def in_memory(cb):
    x = X.clone()
    dl = torch.utils.data.DataLoader([(x,y)], batch_size=None)
    fit(Learner(DataLoaders(dl, dl), flat_net(), loss_func=CrossEntropyLossFlat()), cb)
    if not x.equal(X): raise Wrong('changes them')

rows = {}
def row(name, *trials): rows[name] = trials

row('Class weights, `ignore_index`', *itertools.product(['MixUp','CutMix'], [weighted,ignoring]))
row('Segmentation, CutMix', ('CutMix', lambda m: train(m, CrossEntropyLossFlat(axis=1), ys=[mask], net=mask_net, check=[Pasted()])))
row('One label, `nn.CrossEntropyLoss`', *[(o, lambda m: train(m, nn.CrossEntropyLoss())) for o in ('MixUp','CutMix')])
row('Tokens and categories: text, tables', ('MixUp', lambda m: train(m, xs=[tokens], net=token_net)))
row('Several inputs, several targets', ('MixUp', lambda m: train(m, xs=[X,torch.randn(n,3)], net=TwoInputs)),
    ('CutMix', lambda m: train(m, two_losses, ys=[y,torch.randn(n)], net=TwoOutputs)))
row('One label, `CrossEntropyLossFlat`', ('MixUp', train), ('CutMix', train))
row('One label, `LabelSmoothingCrossEntropyFlat`', ('MixUp', lambda m: train(m, LabelSmoothingCrossEntropyFlat())))
row('Several labels, soft labels, quantities', ('MixUp', lambda m: train(m, BCEWithLogitsLossFlat(), ys=[hot])),
    ('CutMix', lambda m: train(m, nn.CrossEntropyLoss(), ys=[hot*0.9+0.01])), ('MixUp', lambda m: train(m, MSELossFlat(), ys=[10*hot])))
row('One label, `F.cross_entropy` or a function of your own',
    ('MixUp', lambda m: train(m, F.cross_entropy)), ('CutMix', lambda m: train(m, my_loss)))
row('Segmentation, MixUp', ('MixUp', lambda m: train(m, CrossEntropyLossFlat(axis=1), ys=[mask], net=mask_net)))
row('Signals and volumes, CutMix', ('CutMix', lambda m: train(m, xs=[signal])), ('CutMix', lambda m: train(m, xs=[volume])))
row('A batch of one, MixUp', ('MixUp', lambda m: train(m, bs=1)))
row('To train again after Ctrl-C', ('MixUp', interrupted), ('CutMix', interrupted))
row('Batches kept in memory, CutMix', ('CutMix', in_memory))

def outcome(lib, name, f):
    try: f(getattr(lib, name)())
    except Wrong as e: return str(e).split('\t')[-1]
    except Exception: return 'error'
    return 'yes'

root = Path(__file__).parent.parent
text = (root/'README.md').read_text(encoding='utf-8')
told = {o[0]:o[1:] for o in re.findall(r'^\| (.+?) \| (yes|error|wrong loss|changes them) \| (.+?) \|$', text, flags=re.M)}

def test_all_rows(): assert [*told] == [*rows]

def test_front_page():
    "What a newcomer needs comes first, and every link leads to something in a clone"
    first,_,rest = text.partition('```python')
    assert len(re.sub('<!--.*?-->', '', first).split())<200
    assert len(rest[:rest.index('```')].strip().splitlines())<=6 and '.cutmix()' in rest[:rest.index('```')]
    repo = re.search(r'Repository = "(.+)"', (root/'pyproject.toml').read_text(encoding='utf-8'))[1]
    assert f'pip install git+{repo}\n' in first and f'git clone {repo}\n' in first
    links = [o for o in re.findall(r'\]\(([^)\s]+)\)', text) if not o.startswith('https://')]
    heads = {re.sub(r'[^\w -]', '', o.lower()).replace(' ', '-') for o in re.findall(r'^#+ (.+)$', text, flags=re.M)}
    assert len(links)>20 and not [o for o in links if not (o[1:] in heads if o.startswith('#') else (root/o).is_file())]

def save_photos(folder, n=30):
    "Pictures of three classes and of many sizes"
    rng = np.random.default_rng(0)
    for name,i in itertools.product(('cat','dog','owl'), range(n)):
        (folder/name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*rng.integers(40, 90, 2),3), dtype=np.uint8)).save(folder/name/f'{i}.jpg')

def first_snippet(text): return re.search(r'```python\n(.*?)```', text, flags=re.S)[1]

snippets = {'README':first_snippet(text), 'image tutorial':first_snippet(read_nb(root/'nbs/tutorials/image.ipynb').cells[1].source)}

@pytest.mark.parametrize('page', snippets)
def test_snippet_trains(page, tmp_path, monkeypatch):
    "The first snippet fine-tunes a folder of pictures. Changed are the pretrained weights, which are not downloaded, and the size"
    from torchvision.models import _api, resnet18
    monkeypatch.setattr(_api, 'load_state_dict_from_url', lambda *args, **kwargs: resnet18().state_dict())
    monkeypatch.chdir(tmp_path)
    matplotlib.use('agg')
    save_photos(tmp_path/'photos')
    code,names = snippets[page],{}
    assert code.count('224')==1
    exec(code.replace('224', '48'), names)
    learn = names['learn']
    assert list(learn.dls.vocab)==['cat','dog','owl'] and len(learn.dls.train)==1
    assert isinstance(learn.mixer, ours.CutMix) and learn.mixer.boxes.shape==(64,2,2)
    assert len(learn.recorder.values)==5 and np.isfinite(learn.recorder.values).all()

@pytest.mark.filterwarnings('ignore:.* draws one lambda')
@pytest.mark.parametrize('row', rows)
def test_fastmix(row):
    for name,f in rows[row]: f(getattr(ours, name)())
    assert told[row][1]=='yes'

@pytest.mark.skipif(not fastai.__version__.startswith('2.8.'), reason="the table is of fastai 2.8")
@pytest.mark.parametrize('row', rows)
def test_fastai(row): assert {outcome(theirs, *o) for o in rows[row]} == {told[row][0]}
