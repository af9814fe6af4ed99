"""Does mixing help? One network and one budget a row, every mix, several seeds.

    python benchmarks/accuracy.py DATA                    # all rows, cheapest first
    python benchmarks/accuracy.py DATA --rows leaf,ecg    # some

DATA is a folder with the data sets (named in `FILES`); rows whose data is not there are left out, and said. Every finished run is kept:
started again, it goes on. Results: `benchmarks/results/accuracy.csv`, one line a run with its last epoch, and `accuracy_epochs.csv`,
one line an epoch.
"""
import fcntl, json, os, platform, re, sys, tempfile, time
from argparse import ArgumentParser
from collections import Counter
from io import BytesIO
from pathlib import Path
import fastai, numpy as np, pandas as pd, torch, torch.nn.functional as F
from fastcore.basics import chunked
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.layers import ConvLayer, ResBlock
from fastai.learner import Learner, Metric
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.tabular.model import TabularModel
from torch import nn
import fastmix, fastmix.all as fm
from fastmix.compare import compare
from fastmix.store import read_runs

RESULTS = Path(__file__).parent/'results'
FILES = dict(leaf='ucr_swedishleaf.npz', ecg='ucr_ecg5000.npz', adult='adult.csv.gz', sst2='sst2.csv.gz', agnews='ag_news_12k.csv.gz',
    fashion='fashion_mnist.npz', camvid='camvid.npz', cifar='cifar10_jpeg.npz')
EPS = 4/255 # of the adversarial step, in units of the pixel range


# Data: tensors for training and validation; what is drawn (a subset, replaced labels) is drawn with the seed

class Batches(DataLoader):
    "Batches cut out of tensors, each training batch changed by `aug`"
    def __init__(self, *ts, aug=None, **kwargs):
        self.ts,self.aug = ts,aug
        super().__init__(ts[0], num_workers=0, device=torch.device('cpu'), **kwargs)
    def create_batches(self, idxs):
        for o in chunked(idxs, self.bs):
            b = tuple(t[o] for t in self.ts)
            yield self.aug(*b) if self.aug else b

def dls(train, valid, bs, aug=None):
    return DataLoaders(Batches(*train, aug=aug, bs=bs, shuffle=True), Batches(*valid, bs=512), device='cpu')

def some(n, of, seed): return torch.randperm(of, generator=torch.Generator().manual_seed(seed))[:n]

def replaced(y, share, c, seed):
    "`y` with a `share` of its labels replaced by random ones, and where they are wrong now"
    g = torch.Generator().manual_seed(1000+seed)
    new,idx = y.clone(),torch.randperm(len(y), generator=g)[:round(share*len(y))]
    new[idx] = torch.randint(c, (len(idx),), generator=g)
    return new,new!=y

def flip(x, *ys):
    "Half of the images mirrored, and their masks with them"
    left = torch.rand(len(x))<0.5
    return tuple(o.where(~left.view(-1, *[1]*(o.ndim-1)), o.flip(-1)) if o.ndim>2 else o for o in (x,*ys))

def images(a): return torch.from_numpy(a).float().div_(255).reshape(len(a), *a.shape[1:3], -1).movedim(-1, 1).contiguous()
def labels(a): return torch.from_numpy(a.astype('int64'))

def npz(path): return dict(np.load(path, allow_pickle=False))

def cifar(path, idx):
    "Images `idx` of CIFAR-10, stored as the scans of JPEG files that share a header"
    from PIL import Image
    z = npz(path)
    head,scan,off = z['header'].tobytes(),z['scan'].tobytes(),z['offsets']
    x = np.stack([np.asarray(Image.open(BytesIO(head+scan[off[i]:off[i+1]])).convert('RGB')) for i in idx])
    return images(x),labels(np.concatenate([z['y_train'],z['y_test']]))[idx]

def texts(df, train, length, vocab=10000):
    "Texts as indices, with the vocabulary of those for training: 0 pads, 1 is unknown"
    toks = [re.findall(r"\w+|[^\w\s]", o.lower())[:length] for o in df.text]
    count = Counter(t for i in train for t in toks[i])
    idx = {t:i+2 for i,(t,n) in enumerate(count.most_common(vocab)) if n>1}
    ids = torch.zeros(len(toks), length, dtype=torch.long)
    for i,o in enumerate(toks): ids[i,:len(o)] = torch.tensor([idx.get(t,1) for t in o])
    return ids,torch.tensor(df.label.to_numpy()),len(idx)+2


# Networks

class Fast(nn.Sequential):
    "Convolutions in bfloat16 and channels_last, for time"
    def forward(self, x):
        with torch.autocast('cpu', torch.bfloat16): return super().forward(x.to(memory_format=torch.channels_last)).float()

def head(n, c): return nn.AdaptiveAvgPool2d(1),nn.Flatten(),nn.Linear(n, c)
def digits_net(): return nn.Sequential(ConvLayer(1,16), ConvLayer(16,32,stride=2), ConvLayer(32,64,stride=2), *head(64, 10))
def fashion_net():
    return Fast(ConvLayer(1,16,stride=2), ResBlock(1,16,32,stride=2), ResBlock(1,32,64,stride=2), *head(64, 10)
        ).to(memory_format=torch.channels_last)
def cifar_net():
    return Fast(ConvLayer(3,32,stride=2), ResBlock(1,32,32), ResBlock(1,32,64,stride=2), ResBlock(1,64,128,stride=2), *head(128, 10)
        ).to(memory_format=torch.channels_last)
def signal_net(c):
    convs = [ConvLayer(i, o, ks=ks, stride=2, ndim=1) for i,o,ks in ((1,32,7),(32,64,5),(64,64,3))]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, c))

class TextCNN(nn.Module):
    "Kim's, with embeddings that start at random"
    def __init__(self, vocab, c, n=64):
        super().__init__()
        self.emb,self.drop,self.out = nn.Embedding(vocab, n, padding_idx=0),nn.Dropout(0.5),nn.Linear(3*n, c)
        self.convs = nn.ModuleList(nn.Conv1d(n, n, ks) for ks in (3,4,5))
    def forward(self, ids):
        x = self.emb(ids).movedim(-1, 1)
        return self.out(self.drop(torch.cat([conv(x).relu().amax(-1) for conv in self.convs], 1)))

def conv2(i, o): return nn.Sequential(ConvLayer(i, o), ConvLayer(o, o))
class UNet(nn.Module):
    "Two levels down and up again"
    def __init__(self, c, n=16):
        super().__init__()
        self.down1,self.down2,self.mid = conv2(3, n),conv2(n, 2*n),conv2(2*n, 4*n)
        self.up2,self.up1,self.out = conv2(6*n, 2*n),conv2(3*n, n),nn.Conv2d(n, c, 1)
    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.mid(F.max_pool2d(b, 2))
        c = self.up2(torch.cat([b,F.interpolate(c, size=b.shape[-2:])], 1))
        return self.out(self.up1(torch.cat([a,F.interpolate(c, size=a.shape[-2:])], 1)))


# What is measured

class MIoU(Metric):
    "Mean over classes of intersection over union, over all pixels that have a class"
    name = 'miou'
    def reset(self): self.n = 0
    def accumulate(self, learn):
        p,y = learn.pred.argmax(1),learn.y
        ok,c = y<learn.pred.shape[1],learn.pred.shape[1]
        self.n = self.n + torch.bincount(y[ok]*c + p[ok], minlength=c*c).view(c, c).double()
    @property
    def value(self):
        both = self.n.diag()
        union = self.n.sum(0)+self.n.sum(1)-both
        return (both/union)[union>0].mean().item()

class CpuTime(Callback):
    "Seconds of processor time, which other work on the machine changes less than those of the clock"
    def before_fit(self): self.start = time.process_time()
    def after_fit(self): self.learn.cpu_seconds = time.process_time()-self.start

def ece(p, y, bins=15):
    "Expected calibration error: how far accuracy is from confidence, over `bins` of confidence"
    conf,pred = p.max(1)
    which = (conf*bins).ceil().long().clamp(1, bins)
    inside = [which==b for b in range(1, bins+1)]
    gaps = [((pred==y)[o].float().mean() - conf[o].mean()).abs()*o.sum() for o in inside if o.any()]
    return (sum(gaps)/len(y)).item()

def fgsm(model, x, y):
    "`x` after one step of `EPS` that makes the loss worse"
    x = x.clone().requires_grad_()
    g, = torch.autograd.grad(F.cross_entropy(model(x), y), x)
    return (x + EPS*g.sign()).detach().clamp(0, 1)

def predict(learn, *xs):
    learn.model.eval()
    with torch.no_grad(): return torch.cat([learn.model(*b).softmax(1) for b in zip(*(x.split(512) for x in xs))])

def calibration(learn):
    "Calibration on the validation set"
    *xs,y = learn.dls.valid.ts
    return dict(ece=ece(predict(learn, *xs), y), cpu_seconds=learn.cpu_seconds)

def attacked(learn):
    "And accuracy under FGSM, and the share of wrong training labels that were learned by heart"
    (x,y),(xt,yt) = learn.dls.valid.ts,learn.dls.train.ts
    bad = torch.cat([fgsm(learn.model.eval(), *b) for b in zip(x[:2000].split(500), y[:2000].split(500))])
    res = calibration(learn) | dict(fgsm_accuracy=(predict(learn, bad).argmax(1)==y[:2000]).float().mean().item())
    wrong = getattr(learn, 'wrong', None)
    if wrong is None or not wrong.any(): return res
    return res | dict(memorised=(predict(learn, xt).argmax(1)==yt)[wrong].float().mean().item())

def cpu_time(learn): return dict(cpu_seconds=learn.cpu_seconds)


# Rows

def learner(d, net, loss=None, metrics=accuracy, wrong=None):
    res = Learner(d, net, loss_func=loss or CrossEntropyLossFlat(), metrics=metrics, cbs=CpuTime())
    res.wrong = wrong
    return res

def digits_row(noise):
    from sklearn.datasets import load_digits
    d = load_digits()
    x,y = torch.tensor(d.images/16, dtype=torch.float32)[:,None],torch.tensor(d.target)
    def get_learner(seed):
        y1,wrong = replaced(y[:1000], noise, 10, seed)
        return learner(dls((x[:1000],y1), (x[1000:],y[1000:]), 50), digits_net(), wrong=wrong)
    return get_learner

def fashion_row(path, noise, n=2000, n_val=2000):
    z = npz(path)
    x,y,xv,yv = images(z['x_train']),labels(z['y_train']),images(z['x_test'][:n_val]),labels(z['y_test'][:n_val])
    def get_learner(seed):
        idx = some(n, len(y), seed)
        y1,wrong = replaced(y[idx], noise, 10, seed)
        return learner(dls((x[idx],y1), (xv,yv), 50), fashion_net(), wrong=wrong)
    return get_learner

def cifar_row(path, n=10000, n_val=2000):
    xv,yv = cifar(path, range(50000, 50000+n_val))
    def get_learner(seed): return learner(dls(cifar(path, some(n, 50000, seed).tolist()), (xv,yv), 64, flip), cifar_net())
    return get_learner

def camvid_row(path):
    z = npz(path)
    half = lambda s: (F.avg_pool2d(images(z['x_'+s]), 2),labels(z['y_'+s][:,::2,::2]))
    train,valid = half('train'),half('test')
    def get_learner(seed):
        net = Fast(UNet(11)).to(memory_format=torch.channels_last)
        return learner(dls(train, valid, 8, flip), net, CrossEntropyLossFlat(axis=1, ignore_index=11), MIoU())
    return get_learner

def text_row(path, n, length, c):
    df = pd.read_csv(path, keep_default_na=False)
    train,test = (np.flatnonzero(df.split==o) for o in ('train','test'))
    def get_learner(seed):
        idx = train[some(n, len(train), seed)]
        ids,y,vocab = texts(df, idx, length)
        return learner(dls((ids[idx],y[idx]), (ids[test],y[test]), 50), TextCNN(vocab, c))
    return get_learner

def adult_row(path, n=5000):
    df = pd.read_csv(path, keep_default_na=False)
    train,test = (np.flatnonzero(df.split==o) for o in ('train','test'))
    cats = [o for o in df if o not in ('split','income') and not pd.api.types.is_numeric_dtype(df[o])]
    cat = torch.tensor(np.stack([df[o].astype('category').cat.codes for o in cats], 1).astype('int64'))
    cont = torch.tensor(df.select_dtypes('number').to_numpy().astype('float32'))
    y = torch.tensor(df.income.str.startswith('>').to_numpy().astype('int64'))
    sizes = [(k,min(20, k//2+1)) for k in (cat.amax(0)+1).tolist()]
    def get_learner(seed):
        idx = train[some(n, len(train), seed)]
        z = (cont-cont[idx].mean(0))/cont[idx].std(0)
        return learner(dls((cat[idx],z[idx],y[idx]), (cat[test],z[test],y[test]), 64), TabularModel(sizes, z.shape[1], 2, [200,100]))
    return get_learner

def signal_row(path, c):
    z = npz(path)
    (x,y),(xv,yv) = ((torch.from_numpy(z['x_'+s])[:,None],labels(z['y_'+s])) for s in ('train','test'))
    def get_learner(seed): return learner(dls((x,y), (xv,yv), 50), signal_net(c))
    return get_learner

IMAGE = 'MixUp CutMix ManifoldMixUp OutputMixUp MixChoice'
ROWS = { # name: (data, function, its arguments, mixes, epochs, learning rate, seeds, what is measured)
    **{f'digits-{o}': (None, digits_row, (o/100,), IMAGE+' MixUp8'*(o>0), 30, 1e-2, 5, attacked) for o in (0,20,50)},
    'leaf': ('leaf', signal_row, (15,), 'MixUp CutMix ManifoldMixUp', 60, 1e-2, 5, calibration),
    'ecg': ('ecg', signal_row, (5,), 'MixUp CutMix ManifoldMixUp', 30, 1e-2, 5, calibration),
    'adult': ('adult', adult_row, (), 'MixUp ManifoldMixUp', 8, 3e-3, 5, calibration),
    **{f'sst2-{n}': ('sst2', text_row, (n,40,2), 'MixUp ManifoldMixUp', e, 3e-3, 5, calibration) for n,e in ((1000,15),(5000,8))},
    **{f'agnews-{n}': ('agnews', text_row, (n,50,4), 'MixUp ManifoldMixUp', e, 3e-3, 5, calibration) for n,e in ((1000,15),(5000,8))},
    **{f'fashion-{o}': ('fashion', fashion_row, (o/100,), IMAGE+' MixUp8'*(o>0), 25, 5e-3, 3, attacked) for o in (0,20,50)},
    'camvid': ('camvid', camvid_row, (), 'MixUp CutMix ManifoldMixUp', 15, 1e-2, 3, cpu_time),
    'cifar': ('cifar', cifar_row, (), IMAGE, 15, 5e-3, 3, attacked)}


# Results

def mixes_of(names):
    "The mixes of a row, as they come by default, as far as this version of the package has them; and a strong one against wrong labels"
    make = dict(MixUp8=lambda: fm.MixUp(8.), MixChoice=lambda: fm.MixChoice(fm.MixUp(), fm.CutMix()))
    return dict(none=None) | {o:make.get(o, getattr(fm, o, None))() for o in names.split() if o=='MixUp8' or hasattr(fm, o)}

def machine():
    v = dict(python=platform.python_version(), torch=torch.__version__, fastai=fastai.__version__, fastmix=fastmix.__version__)
    return v | dict(cores=os.cpu_count(), threads=torch.get_num_threads(), system=f"{platform.system()} {platform.machine()}")

SETTINGS = ['mix','what','seed','weights','n_epoch','lr','fit','metrics','measure']
def load(name):
    return pd.read_csv(RESULTS/name, keep_default_na=False, na_values=['']) if (RESULTS/name).exists() else pd.DataFrame(columns=['row'])

def restore(row, out):
    "Write the runs of `row` that the CSV files hold to `out`, as `compare` has them"
    if out.exists(): return
    ends,epochs = load('accuracy.csv'),load('accuracy_epochs.csv')
    lines = []
    for r in ends[ends.row==row].to_dict('records'):
        by = epochs[(epochs.row==row)&(epochs.mix==r['mix'])&(epochs.seed==r['seed'])]
        by = by.drop(columns=['row','mix','seed','epoch']).dropna(axis=1)
        extra = {k[2:]:v for k,v in r.items() if k.startswith('m_') and v==v}
        lines.append(json.dumps({k:r[k] for k in SETTINGS} | dict(metrics=r['metrics'].split(), names=list(by), values=by.values.tolist(),
            seconds=r['seconds'], measured=extra)))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(''.join(o+'\n' for o in lines))

def save(row, out):
    "Put the runs of `row` into the CSV files; those that were there keep their lines"
    ends,epochs,runs = load('accuracy.csv'),load('accuracy_epochs.csv'),read_runs(out)
    old = {(r['row'],r['mix'],r['seed']) for r in ends.to_dict('records')}
    runs = [r for r in runs if (row,r['mix'],r['seed']) not in old]
    new = [dict(row=row) | {k:r[k] for k in SETTINGS} | dict(metrics=' '.join(r['metrics']), seconds=round(r['seconds'], 2)) | machine()
        | dict(zip(r['names'],r['values'][-1])) | {'m_'+k:v for k,v in r['measured'].items()} for r in runs]
    by = [dict(row=row, mix=r['mix'], seed=r['seed'], epoch=i+1) | dict(zip(r['names'],v)) for r in runs for i,v in enumerate(r['values'])]
    RESULTS.mkdir(exist_ok=True)
    for name,df,more in (('accuracy.csv',ends,new),('accuracy_epochs.csv',epochs,by)):
        if not more: continue
        df = pd.concat([df,pd.DataFrame(more)]) if len(df) else pd.DataFrame(more)
        df.to_csv(RESULTS/(name+'.new'), index=False, float_format='%.6g')
        os.replace(RESULTS/(name+'.new'), RESULTS/name)

def main(
    data='', # Folder with the data sets; without it only the digits, which come with scikit-learn
    rows='', # Rows to run, with commas between; by default all
    threads=None, # Of PyTorch
    work=Path(tempfile.gettempdir())/'fastmix-accuracy' # Folder for rows that are not finished
):
    "Train what the tables of the docs show"
    if threads: torch.set_num_threads(threads)
    names = rows.split(',') if rows else list(ROWS)
    if unknown := [o for o in names if o not in ROWS]: sys.exit(f"Expected rows among {', '.join(ROWS)}, but got {', '.join(unknown)}")
    for name in names:
        file,func,args,mixes,n_epoch,lr,seeds,measure = ROWS[name]
        path = Path(data)/FILES[file] if file else None
        if path and not (data and path.exists()):
            print(f"{name}: left out, since there is no {FILES[file]} in {data or 'a data folder, which was not given'}")
            continue
        start,out = time.perf_counter(),Path(work)/f'{name}.jsonl'
        restore(name, out)
        try: res = compare(func(*([path] if path else []), *args), mixes_of(mixes), n_epoch, lr, seeds, out=out, measure=measure)
        finally:
            with (Path(work)/'lock').open('w') as f: # for those who run rows side by side
                fcntl.flock(f, fcntl.LOCK_EX)
                save(name, out)
        print(f"\n{name}, {time.perf_counter()-start:.0f} s\n{res}\n", flush=True)

if __name__ == '__main__':
    p = ArgumentParser(description=main.__doc__)
    p.add_argument('data', nargs='?', default='', help="folder with the data sets; without it only the digits, which scikit-learn has")
    p.add_argument('--rows', default='', help=f"with commas between; by default all: {', '.join(ROWS)}")
    p.add_argument('--threads', type=int, help="of PyTorch")
    p.add_argument('--work', default=main.__defaults__[3], help="folder for rows that are not finished, %(default)s")
    main(**vars(p.parse_args()))
