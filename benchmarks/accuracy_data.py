"""Data of `accuracy.py` as tensors for training and validation; what is drawn (a subset, replaced labels) is drawn with the seed"""
import numpy as np, re, torch, zipfile
from collections import Counter
from io import BytesIO
from fastcore.basics import chunked
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader

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


# Quantities, as C-Mixup (https://arxiv.org/abs/2210.05775) splits and scales them

def to_unit(x): return (x-x.min(0))/(x.max(0)-x.min(0))

def shuffled(df, seed, n=1003, n_test=200):
    "`n` rows of `df` for training and `n_test` for testing, drawn with the seed; the last column is the target"
    a = df.sample(frac=1, random_state=seed).to_numpy('float32')
    x,y = torch.from_numpy(to_unit(a[:,:-1])),torch.from_numpy(a[:,-1:])
    return (x[:n],y[:n]),(x[-n_test:],y[-n_test:])

def by_group(df, group, target, drop=()):
    "Groups of `df` in ascending order: those before 70 % of the rows are full for training, those after another 10 % for testing"
    df = df.fillna(df.mean())
    ends = df.groupby(group).size().cumsum()
    first = ends[ends>=int(0.7*len(df))].index[0]
    test = ends[ends>=ends[first]+int(0.1*len(df))].index[0]
    x,y,g = df.drop(columns=[group,target,*drop]),df[[target]],df[group].to_numpy()
    x,y = (torch.from_numpy(o.to_numpy('float32')) for o in (to_unit(x),y))
    return tuple((x[o],y[o]) for o in (g<first,g>=test))


# Images of other kinds

def long_tailed(y, most, ratio, seed):
    "Indices of `most` samples of one class, `most/ratio` of another, a geometric progression between; which is how rare is drawn"
    g,c = torch.Generator().manual_seed(seed),int(y.max())+1
    sizes = [round(most*ratio**(-i/(c-1))) for i in torch.randperm(c, generator=g).tolist()]
    of = [(y==k).nonzero()[:,0] for k in range(c)]
    return torch.cat([o[torch.randperm(len(o), generator=g)[:n]] for o,n in zip(of,sizes)])

def photos(path, idx):
    "Photos `idx` of a zip file with a folder for each class, as pixels and labels"
    from PIL import Image
    with zipfile.ZipFile(path) as z:
        names = sorted(o for o in z.namelist() if o.endswith('.jpg'))
        classes = sorted({o.split('/')[-2] for o in names})
        x = np.stack([np.asarray(Image.open(BytesIO(z.read(names[i]))).convert('RGB')) for i in idx])
    return images(x),torch.tensor([classes.index(names[i].split('/')[-2]) for i in idx])

def crops(x, *ys, size=112):
    "A square of each image at a random place, and half of them mirrored"
    at = torch.randint(x.shape[-1]-size+1, (len(x),2)).tolist()
    return flip(torch.stack([o[:,i:i+size,j:j+size] for o,(i,j) in zip(x,at)]), *ys)

def middle(x, size=112):
    a = (x.shape[-1]-size)//2
    return x[...,a:a+size,a:a+size].contiguous()
