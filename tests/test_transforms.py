"""The batch functions and the loss under every transform of PyTorch, in every layout and on every device that is at hand

Each is compared with a slow oracle in Python, or refused in words. What a card alone can show is in benchmarks/gpu.py."""
import itertools, numpy as np, pytest, torch, torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize, grad, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.overrides import TorchFunctionMode
from fastmix.draw import box_lam, draw_boxes, draw_lam, draw_perm, perm_within
from fastmix.loss import MixUpLoss
from fastmix.mix import cutmix_batch, mix_targets, mixup_batch
from fastmix.paste import paste
from fastmix.tensors import take

B,C = 4,5
PERM,LAM = torch.tensor([1,2,3,0]),torch.tensor([.3,1.,.85,.5])
BOXES = torch.tensor([[[0,2],[1,4]],[[1,4],[0,4]],[[0,0],[0,4]],[[2,3],[2,3]]])
Y,W = torch.tensor([3,1,4,0]),torch.tensor([.2,1.,3.,.7,.1])
Y1 = Y[PERM]
def images(): return torch.randn(B,2,4,4, generator=torch.Generator().manual_seed(0))
def logits(): return torch.randn(B,C, generator=torch.Generator().manual_seed(1))

# ---- slow oracles

def slow_mix(x, lam=LAM,
    perm=PERM): return torch.stack([x[i] if l==1 else l*x[i]+(1-l)*x[perm[i]] for i,l in enumerate(lam.tolist()*(B//len(lam)))])
def slow_cut(x, boxes=BOXES, perm=PERM):
    res = x.clone()
    for i in range(B):
        (a,b),(c,d) = boxes[i%len(boxes)].tolist()
        res[i,...,a:b,c:d] = x[perm[i],...,a:b,c:d]
    return res
def slow_ce(pred, lam=LAM, w=W, y=Y, y1=Y1):
    num = den = 0.
    for i,l in enumerate(lam.tolist()):
        for t,s in ((y[i],l),(y1[i],1-l)): num,den = num+s*w[t]*(pred[i].logsumexp(0)-pred[i,t]),den+s*w[t]
    return num/den
def slow_mse(pred, lam=LAM, y=None, y1=None): return sum((l*(p-a)**2+(1-l)*(p-b)**2).sum() for p,a,b,l in zip(pred, y, y1,
    lam.tolist()))/pred.numel()

T = torch.randn(B,C, generator=torch.Generator().manual_seed(2))
T1 = T[PERM]
ce,mse = MixUpLoss(nn.CrossEntropyLoss(weight=W)),MixUpLoss(nn.MSELoss())
def mixup(x): return mixup_batch(x, perm=PERM, lam=LAM)[0]
def cutmix(x): return cutmix_batch(x, perm=PERM, boxes=BOXES)[0]
def ce_loss(p): return ce(p, Y, yb1=Y1, lam=LAM)
def mse_loss(p): return mse(p, T, yb1=T1, lam=LAM)
cases = {'mixup':(mixup,slow_mix,images), 'cutmix':(cutmix,slow_cut,images), 'ce':(ce_loss,slow_ce,logits),
    'mse':(mse_loss,lambda p: slow_mse(p, y=T, y1=T1),logits)}
each = pytest.mark.parametrize('name', cases)
def close(a, b, tol=1e-5): torch.testing.assert_close(a, b, atol=tol, rtol=tol)

# ---- transforms

def exported(f, x):
    class M(nn.Module):
        def forward(self, x): return f(x)
    return torch.export.export(M(), (x,)).module()

transforms = dict(compile=lambda f,x: torch.compile(f, backend='eager', fullgraph=True),
    aot=lambda f,x: torch.compile(f, backend='aot_eager', fullgraph=True),
    export=exported, trace=lambda f,x: torch.jit.trace(f, x, check_trace=False), make_fx=lambda f,x: make_fx(f)(x),
        fake_fx=lambda f,x: make_fx(f, tracing_mode='fake', _allow_non_fake_inputs=True)(x),
    symbolic_fx=lambda f,x: make_fx(f, tracing_mode='symbolic', _allow_non_fake_inputs=True)(x), functionalize=lambda f,x: functionalize(f),
    functional_fx=lambda f,x: make_fx(functionalize(f))(x), identity=lambda f,x: f)

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('how', transforms)
@each
def test_transform(name, how):
    "What was recorded of one batch is right for another"
    f,slow,make = cases[name]
    torch._dynamo.reset()
    g = transforms[how](f, make())
    for x in (make(),make()*2+1): close(g(x), slow(x))

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('how', ('trace','make_fx','functionalize','functional_fx','export','aot'))
@pytest.mark.parametrize('mix', (mixup_batch,cutmix_batch))
def test_drawn_while_recorded(mix, how):
    "A recorded mix draws anew each time it runs, and what it returns belongs together"
    def f(x):
        xm,y1,lam,*_ = mix(x, torch.arange(4.))
        return xm,y1,lam
    x = torch.arange(4.).view(4,1,1,1).expand(4,1,6,6).clone()
    torch._dynamo.reset()
    g = transforms[how](f, x)
    seen = []
    for _ in range(4):
        xm,y1,lam = g(x)
        close(xm.mean((1,2,3)), lam*torch.arange(4)+(1-lam)*y1)
        seen.append(lam)
    assert len({tuple(o.tolist()) for o in seen})>1

@pytest.mark.parametrize('mix', (mixup_batch,cutmix_batch))
def test_graphs(mix):
    "A whole training step is one graph, and two do for ten batch sizes and as many alphas"
    loss,net,graphs = MixUpLoss(nn.CrossEntropyLoss(weight=W, ignore_index=1, label_smoothing=.1)),nn.Sequential(nn.Flatten(),
        nn.Linear(3*36,C)),[]
    def backend(g, _):
        graphs.append(g)
        return g.forward
    def step(x, y, alpha):
        xm,y1,lam,*_ = mix(x, y, alpha)
        return loss(net(xm), y, yb1=y1, lam=lam)
    torch._dynamo.reset()
    compiled = torch.compile(step, backend=backend, fullgraph=True)
    for k,n in enumerate((4,6,5,7,9,16,3,8,2,11)): assert compiled(torch.randn(n,3,6,6), torch.randint(C, (n,)), .2+k/10).isfinite()
    assert len(graphs)<=2
    torch._dynamo.reset()
    graphs.clear()
    for alpha in (.1,.4,.7,2.,1.,.3): compiled(torch.randn(4,3,6,6), torch.randint(C, (4,)), alpha)
    torch._dynamo.reset()
    assert len(graphs)<=2

@pytest.mark.parametrize('f', (nn.CrossEntropyLoss(), nn.NLLLoss(), nn.MSELoss(), nn.L1Loss(), nn.BCEWithLogitsLoss(),
    nn.KLDivLoss(reduction='batchmean'), nn.SmoothL1Loss(beta=.3),
    nn.HuberLoss(), nn.MultiMarginLoss(), F.cross_entropy, F.mse_loss), ids=lambda o: getattr(o, '__name__', None) or str(o))
def test_graphs_of_losses(f):
    "So it is for other known losses, whose value is that of the loss uncompiled"
    loss,graphs = MixUpLoss(f),[]
    def backend(g, _):
        graphs.append(g)
        return g.forward
    torch._dynamo.reset()
    compiled = torch.compile(lambda p,y,y1,l: loss(p, y, yb1=y1, lam=l), backend=backend, fullgraph=True)
    for n in (4,6,5,7):
        p,y = torch.randn(n,C),torch.randint(C, (n,)) if getattr(f, '__name__',
            str(f)) in ('cross_entropy','CrossEntropyLoss()','NLLLoss()','MultiMarginLoss()') else torch.rand(n,C)
        l = torch.rand(n)
        close(compiled(p, y, y.flip(0), l), loss(p, y, yb1=y.flip(0), lam=l))
    torch._dynamo.reset()
    assert len(graphs)<=2

def test_export_with_dynamic_batch():
    "An exported step serves all batch sizes"
    class M(nn.Module):
        def forward(self, x, perm, lam, boxes): return mixup_batch(x, perm=perm, lam=lam)[0],cutmix_batch(x, perm=perm, boxes=boxes)[0]
    n = torch.export.Dim('n', min=2)
    x = images()
    prog = torch.export.export(M(), (x,PERM,LAM,BOXES), dynamic_shapes=({0:n},{0:n},{0:n},{0:n})).module()
    close(prog(x, PERM, LAM, BOXES), (slow_mix(x),slow_cut(x)))
    x,perm,lam = torch.randn(7,2,4,4),draw_perm(7),torch.rand(7)
    boxes = draw_boxes((4,4), lam)
    close(prog(x, perm, lam, boxes), (mixup_batch(x, perm=perm, lam=lam)[0],cutmix_batch(x, perm=perm, boxes=boxes)[0]))

def test_vmap():
    "Over a leading dimension, with draws given for all or for each"
    xs,perms,lams = torch.randn(3,B,2,4,4),torch.stack([PERM,PERM.roll(1),PERM.flip(0)]),torch.rand(3,B)
    lams[0,0] = 1
    boxes = torch.stack([BOXES,BOXES.flip(0),BOXES.roll(1,0)])
    close(vmap(mixup)(xs), torch.stack([slow_mix(x) for x in xs]))
    close(vmap(cutmix)(xs), torch.stack([slow_cut(x) for x in xs]))
    close(vmap(lambda x,p,l: mixup_batch(x, perm=p, lam=l)[0])(xs, perms, lams),
        torch.stack([slow_mix(x, l, p) for x,p,l in zip(xs, perms, lams)]))
    close(vmap(lambda x,p,b: cutmix_batch(x, perm=p, boxes=b)[0])(xs, perms, boxes),
        torch.stack([slow_cut(x, b, p) for x,p,b in zip(xs, perms, boxes)]))
    close(vmap(lambda l: mixup_batch(xs[0], perm=PERM, lam=l)[0])(lams), torch.stack([slow_mix(xs[0], l) for l in lams]))
    close(vmap(lambda b: cutmix_batch(xs[0], perm=PERM, boxes=b)[0])(boxes), torch.stack([slow_cut(xs[0], b) for b in boxes]))
    close(vmap(lambda l: mixup_batch(xs[0], perm=PERM, lam=l)[0])(lams[:,0]),
        torch.stack([slow_mix(xs[0], l.expand(B)) for l in lams[:,0]]))
    ps = torch.randn(3,B,C)
    close(vmap(ce_loss)(ps), torch.stack([slow_ce(p) for p in ps]))
    close(vmap(lambda p,l: ce(p, Y, yb1=Y1, lam=l))(ps, lams), torch.stack([slow_ce(p, l) for p,l in zip(ps, lams)]))

@pytest.mark.parametrize('mix,kw', [(mixup_batch,{}), (mixup_batch,dict(per_sample=False)), (cutmix_batch,{}),
    (cutmix_batch,dict(per_sample=False)), (cutmix_batch,dict(minmax=(.2,.6)))])
def test_vmap_of_draws(mix, kw):
    "Drawn inside of vmap: each its own with `randomness='different'`, all the same with 'same', and PyTorch's own words without"
    x = torch.arange(4.).view(4,1,1,1).expand(4,1,6,6).expand(3,-1,-1,-1,-1)
    f = lambda x: mix(x, torch.arange(4.), **kw)[:3]
    for how in ('different','same'):
        xm,y1,lam = vmap(f, randomness=how)(x)
        y1,lam = y1.expand(3,4),lam.expand(3,-1) if lam.ndim>1 else lam.expand(3,lam.shape[-1])
        close(xm.mean((2,3,4)), lam*torch.arange(4)+(1-lam)*y1)
        assert (how=='same')==bool((lam==lam[0]).all())
    with pytest.raises(RuntimeError, match='randomness'): vmap(f)(x)

def test_per_sample_gradients():
    "`vmap(grad(loss))` gives the gradient of each sample's own mixed loss"
    net = nn.Linear(6, C)
    params,xs = dict(net.named_parameters()),torch.randn(B,6)
    def of(params, x, y, y1, l): return ce(torch.func.functional_call(net, params, (x[None],)), y[None], yb1=y1[None], lam=l[None])
    got = vmap(grad(of), (None,0,0,0,0))(params, xs, Y, Y1, LAM)['weight']
    for i in range(B):
        p = net(xs[i:i+1])
        want, = torch.autograd.grad(slow_ce(p, LAM[i:i+1], y=Y[i:i+1], y1=Y1[i:i+1]), net.weight)
        close(got[i], want)

@each
def test_derivatives(name):
    "Gradients, Jacobians and forward mode agree with those of the oracle"
    f,slow,make = cases[name]
    x,v = make().double(),torch.randn_like(make()).double()
    if name=='ce': slow = lambda p: slow_ce(p, w=W.double())
    if name=='mse': slow = lambda p: slow_mse(p, y=T.double(), y1=T1.double())
    g = MixUpLoss(nn.CrossEntropyLoss(weight=W.double())) if name=='ce' else mse
    if name in ('ce','mse'): f = (lambda p: g(p, Y, yb1=Y1, lam=LAM)) if name=='ce' else lambda p: g(p, T.double(), yb1=T1.double(),
        lam=LAM)
    total = lambda h: lambda x: h(x).sin().sum()
    close(grad(total(f))(x), grad(total(slow))(x))
    close(jacrev(f)(x), jacrev(slow)(x))
    for o in (f,slow): assert jvp(o, (x,), (v,))[1].isfinite().all()
    close(jvp(f, (x,), (v,))[1], jvp(slow, (x,), (v,))[1])
    leaf = x.clone().requires_grad_()
    close(torch.autograd.grad(total(f)(leaf), leaf)[0], grad(total(slow))(x))
    assert torch.autograd.gradcheck(f, leaf, check_forward_ad=True)
    close(vmap(grad(total(f)))(torch.stack([x,x*2]))[1], grad(total(slow))(x*2))

def test_derivatives_of_lam():
    "A lambda that is learnt has a gradient, at 1 too"
    x,l = images().double(),LAM.double().requires_grad_()
    x1 = x[PERM]
    mixup_batch(x, perm=PERM, lam=l)[0].sum().backward()
    close(l.grad, (x-x1).sum((1,2,3)))
    close(grad(lambda l: mixup_batch(x, perm=PERM, lam=l)[0].sum())(LAM), (x-x1).sum((1,2,3)).float())
    close(jvp(lambda l: mixup_batch(x, perm=PERM, lam=l)[0].sum(), (LAM,), (torch.ones(B),))[1].double(), (x-x1).sum())

@each
def test_contexts(name):
    "Deterministic mode, inference mode, autocast, no gradients, and modes that look on change no value"
    f,slow,make = cases[name]
    class Nothing(TorchDispatchMode):
        seen = 0
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            Nothing.seen += 1
            return func(*args, **(kwargs or {}))
    class Function(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None): return func(*args, **(kwargs or {}))
    x = make()
    want = slow(x)
    for context in (torch.inference_mode(), torch.no_grad(), Nothing(), Function(), torch.device('meta'),
        torch.autocast('cpu', torch.bfloat16)):
        with context: got = f(x)
        close(got, want)
        assert got.dtype==torch.float32
    assert Nothing.seen
    with torch.inference_mode(): close(f(make()), want)
    torch.use_deterministic_algorithms(True)
    try: close(f(x.requires_grad_()), want)
    finally: torch.use_deterministic_algorithms(False)

def test_a_mode_sees_the_mix():
    "A dispatch mode that records what is done can repeat it: nothing is written behind its back"
    for f in (mixup,cutmix):
        class Double(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                self.ops.append(func._opname)
                return func(*args, **(kwargs or {}))
        with Double() as mode:
            mode.ops = []
            f(images())
        assert {'lerp','where'} & {*mode.ops}

@pytest.mark.parametrize('mix', (mixup_batch,cutmix_batch))
def test_without_values(mix):
    "Fake and meta tensors go through, drawn or given; nothing asks for a value"
    for kw in ({}, dict(per_sample=False), dict(alpha=0)):
        out = mix(images().to('meta'), Y.to('meta'), **kw)
        assert out[0].shape==(B,2,4,4) and all(o.is_meta for o in out)
        with FakeTensorMode() as mode:
            out = mix(mode.from_tensor(images()), mode.from_tensor(Y), **kw)
            assert out[0].shape==(B,2,4,4)
    with FakeTensorMode(allow_non_fake_inputs=True): assert mix(images(), perm=PERM)[0].shape==(B,2,4,4)
    with FakeTensorMode() as mode:
        assert mix(mode.from_tensor(images()), perm=[1,2,3,0],
            **(dict(lam=.5) if mix is mixup_batch else dict(boxes=[[[0,1],[0,2]]])))[0].shape==(B,2,4,4)
        fake = [mode.from_tensor(o) for o in (logits(),Y,Y1,LAM)]
        for loss in (MixUpLoss(nn.CrossEntropyLoss()), MixUpLoss(nn.MultiMarginLoss())): assert loss(*fake[:2], yb1=fake[2],
            lam=fake[3]).shape==()

# ---- layouts and types

def overlapping(x):
    "Samples whose memory overlaps"
    return x.flatten()[:B*8+24].as_strided((B,2,4,4), (8,16,4,1))
layouts = dict(contiguous=lambda x: x, channels_last=lambda x: x.to(memory_format=torch.channels_last),
    strided=lambda x: x.repeat_interleave(2, 3)[...,::2],
    transposed=lambda x: x.transpose(2,3).contiguous().transpose(2,3), expanded=lambda x: x[:,:1].expand(B,2,4,4),
        same=lambda x: x[:1].expand(B,2,4,4),
    overlapping=overlapping, negative=lambda x: torch.complex(x, x).conj().imag, conjugate=lambda x: torch.complex(x, -x).conj(),
        real_part=lambda x: torch.complex(x, x).real)
bits = 'negative','conjugate','real_part' # views of complex numbers, which have these precisions
dtypes = torch.float64,torch.float32,torch.float16,torch.bfloat16,torch.complex64

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('layout,dtype',
    [o for o in itertools.product(layouts, dtypes) if o[0] not in bits or o[1] in (torch.float32,torch.float64)], ids=str)
@pytest.mark.parametrize('needs_grad', (False,True))
def test_layout(layout, dtype, needs_grad):
    "Right in every layout and precision, with and without gradient, and what is given stays as it was"
    x = layouts[layout](images().to(dtype))
    before = x.clone()
    x = x.detach().requires_grad_(needs_grad)
    tol = dict(zip(dtypes, (1e-7,1e-5,5e-3,3e-2,1e-5), strict=True))[dtype]
    for f,slow in ((mixup,slow_mix),(cutmix,slow_cut)):
        got,want = f(x),slow(before.to(torch.complex128) if x.is_complex() else before.double())
        assert got.dtype==x.dtype and not (got.is_conj() or got.is_neg())
        torch.testing.assert_close(got.detach().to(want.dtype), want, atol=tol, rtol=tol)
        if f is cutmix: assert torch.equal(got.detach(), slow_cut(before))
        if layout=='channels_last': assert got.is_contiguous(memory_format=torch.channels_last)
        if needs_grad:
            g, = torch.autograd.grad(got.abs().sum() if got.is_complex() else got.sum(), x)
            assert g.shape==x.shape and g.isfinite().all()
    assert torch.equal(x.detach(), before)

def test_channels_last_3d():
    x = torch.randn(B,2,3,4,5).to(memory_format=torch.channels_last_3d)
    for f in (mixup_batch,cutmix_batch):
        for o in (x, x.clone().requires_grad_()): assert f(o)[0].is_contiguous(memory_format=torch.channels_last_3d)

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('mix', (mixup_batch,cutmix_batch))
def test_refused(mix):
    x = images()
    bad = dict(coo=(x.to_sparse(),'dense batch.*to_dense'), csr=(x[:,0,0].to_sparse_csr(),'dense batch.*to_dense'),
        nested=(torch.nested.nested_tensor([x[0],x[1,:,:2]]),'dense batch.*nested.*padded'),
        mkldnn=(x.to_mkldnn(),'dense batch.*to_dense'),
            quantised=(torch.quantize_per_tensor(x, .1, 0, torch.qint8),'floating point.*dequantize'),
                float8=(x.to(torch.float8_e4m3fn),'floating point'),
        complex_half=(x.to(torch.complex32),'floating point'), integers=((x*9).long(),r'floating point.*x\.float\(\)'),
            array=(x.numpy(),'Tensor, but got ndarray'), booleans=(x>0,'floating point'))
    for o,words in bad.values():
        with pytest.raises(TypeError, match=words): mix(o)
    for shape in ((0,3,4,4), (4,0,4,4), (4,3,0,4), (4,3,4,0)):
        with pytest.raises(ValueError, match=r'at least 1 value, but got x of shape'): mix(torch.zeros(shape))
    with pytest.raises(ValueError, match='a single one for 4'): mix(x, torch.tensor(3))

def test_types():
    "Types of fastai and torchvision come back as what they were, in inputs and targets, with what they carry"
    from fastai.torch_core import TensorImage, TensorCategory, TensorMask, TensorBase
    tv = pytest.importorskip('torchvision.tv_tensors')
    x = images()
    for large in (False,True):
        x = images().repeat(1,1,100,100) if large else images()
        for cls in (TensorImage, TensorBase, tv.Image):
            o = x.as_subclass(cls)
            for needs_grad in (False,True):
                for f,slow in ((mixup,slow_mix),(cutmix,slow_cut)):
                    got = f(o.clone().as_subclass(cls).requires_grad_(needs_grad))
                    assert type(got) is cls
                    close(got.detach().as_subclass(torch.Tensor), slow(x))
    o = TensorImage(images(), note='kept')
    assert mixup(o).note=='kept' and cutmix(o).note=='kept'
    for y in (TensorCategory(Y), TensorMask(torch.arange(4*9).view(4,3,3)), tv.Mask(torch.arange(4*9).view(4,3,3))):
        y1 = mixup_batch(images(), y, perm=PERM)[1]
        assert type(y1) is type(y) and torch.equal(y1.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor)[PERM])
    boxes = tv.BoundingBoxes(torch.rand(4,4), format='XYXY', canvas_size=(4,4))
    got = take(boxes, PERM)
    assert type(got) is tv.BoundingBoxes and got.canvas_size==(4,4)
    p = nn.Parameter(images())
    assert type(mixup(p)) is torch.Tensor and type(cutmix(p)) is torch.Tensor and mixup(p).requires_grad

@pytest.mark.parametrize('mix', (mixup_batch,cutmix_batch))
@pytest.mark.parametrize('y', (np.array([3,1,4,1]), [3,1,4,1], (3,1,4,1), np.array([.5,1,2,4], dtype='f4'),
    np.array([True,False,True,True])), ids=repr)
def test_targets_of_other_kinds(mix, y):
    "Targets as arrays and lists come back as tensors, in the partners' order"
    got = mix(images(), y, perm=PERM)[1]
    assert isinstance(got, torch.Tensor) and got.tolist()==[y[j] for j in PERM.tolist()]

@pytest.mark.parametrize('mix', (mixup_batch,cutmix_batch))
@pytest.mark.parametrize('y', ('abcd', ['a','b','c','d'], [Y,Y,Y,Y[:2]], dict(a=Y)), ids=('text','texts','ragged','dict'))
def test_targets_refused(mix, y):
    with pytest.raises(TypeError, match='Expected y as a Tensor'): mix(images(), y)

@pytest.mark.parametrize('mix', (mixup_batch,cutmix_batch))
def test_arguments_refused(mix):
    "What makes no tensor, or not the right one, is refused in words, with PyTorch's reason"
    x = images()
    for kw,words in ((dict(lam='x'),'Expected lam as a Tensor'), (dict(perm='abcd'),'Expected perm as a Tensor'), (dict(y=Y.numpy()[::-1]),'negative'),
        (dict(y=torch.eye(4).to_sparse()),'dense targets.*to_dense'), (dict(y=torch.nested.nested_tensor([Y,Y,Y,Y[:1]])),'nested.*padded')):
        with pytest.raises(TypeError, match=words): mix(x, **kw)
    with pytest.raises(ValueError, match=r'of shape \(4,\), but got torch.complex64'): mix(x, lam=LAM+0j)
    with pytest.raises(ValueError, match='Expected boxes as integers.*torch.bool'): cutmix_batch(x, boxes=BOXES>0)

# ---- nothing shared, nothing undefined

@pytest.mark.parametrize('n', (1,B))
def test_nothing_is_shared(n):
    "Whatever is written into what comes back, what was given stays"
    given = dict(x=images(), y=Y.clone(), lam=LAM[:n].clone(), perm=PERM.clone(), boxes=BOXES[:n].clone())
    before = {k: v.clone() for k,v in given.items()}
    for perm in (given['perm'], torch.arange(B)): # each its own partner, too
        out = *mixup_batch(given['x'], given['y'], lam=given['lam'], perm=perm),*cutmix_batch(given['x'], given['y'], perm=perm,
            boxes=given['boxes'])
        out += *mixup_batch(given['x'][:1], given['y'][:1], lam=given['lam'][:1]),*cutmix_batch(given['x'][:1], given['y'][:1])
        out += perm_within(given['y']),paste(given['x'], perm, given['boxes']),take(given['y'], perm),mix_targets(given['x'], given['x'],
            given['lam'])
        for o in out: o.zero_()
        assert all(torch.equal(given[k], before[k]) for k in given)

@pytest.mark.parametrize('bad', (float('inf'),float('-inf'),float('nan')))
@pytest.mark.parametrize('size', (4,256))
@pytest.mark.parametrize('how', ('plain','grad','watched','vmap','make_fx','compile'))
@pytest.mark.filterwarnings('ignore')
def test_lam_one(bad, size, how):
    "With lambda 1 a sample stays as it was, whatever its partner holds; its gradient stays its own"
    x,lam,perm = torch.randn(3,2,size,size),torch.tensor([1.,.5,1.]),torch.tensor([1,2,0])
    x[1] = bad
    leaf = x.clone().requires_grad_()
    def f(x): return mixup_batch(x, perm=perm, lam=lam)[0]
    xm = {'plain':lambda: f(x), 'grad':lambda: f(leaf), 'watched':lambda: functionalize(f)(x), 'vmap':lambda: vmap(f)(x[None])[0],
        'make_fx':lambda: make_fx(f)(x)(x), 'compile':lambda: torch.compile(f, backend='aot_eager', fullgraph=True)(x)}[how]()
    assert torch.equal(xm[0], x[0]) and torch.equal(xm[2], x[2]) and not xm[1].isfinite().any()
    if how=='grad':
        xm[[0,2]].sum().backward()
        assert leaf.grad.isfinite().all()
        close(leaf.grad[0], torch.ones(2,size,size))
    own = x[[1,0]] # its own value is infinite
    def g(x): return mixup_batch(x, perm=[1,0], lam=torch.tensor([1.,.5]))[0]
    got = {'watched':functionalize(g), 'vmap':lambda x: vmap(g)(x[None])[0], 'make_fx':lambda x: make_fx(g)(x)(x)}.get(how, g)(own)
    assert torch.equal(got[0].nan_to_num(7), own[0].nan_to_num(7))

def test_lam_one_for_all():
    x = torch.tensor([[float('inf'),1.],[float('nan'),2.],[float('-inf'),3.]])
    for lam in (1., torch.ones(3), torch.ones(1)): assert torch.equal(mixup_batch(x, perm=[1,2,0], lam=lam)[0].nan_to_num(7), x.nan_to_num(7))
    many = torch.randn(300,5)
    lam = (torch.arange(300)%3==0).float().clamp(min=.25)
    close(mixup_batch(many, perm=torch.arange(300).roll(1), lam=lam)[0], lam[:,None]*many+(1-lam[:,None])*many.roll(1, 0))

def test_infinite_targets():
    "What has no weight leaves no trace, and what is infinite on both sides stays so"
    inf,nan = float('inf'),float('nan')
    y,y1,lam = torch.tensor([1.,inf,-inf,2.,-inf]),torch.tensor([nan,1.,-inf,4.,0.]),torch.tensor([1.,0.,.5,.5,.5])
    for wrap in (lambda f: f, functionalize): assert torch.equal(wrap(lambda y: mix_targets(y, y1, lam))(y), torch.tensor([1.,1.,-inf,3.,-inf]))
    leaf = y[[0,3]].requires_grad_()
    g, = torch.autograd.grad(mix_targets(leaf, y1[[0,3]], lam[[0,3]]).sum(), leaf)
    close(g, torch.tensor([1.,.5]))

def test_loss_of_lam_one():
    pred,y = torch.randn(2,3, requires_grad=True),torch.randn(2,3)
    bad = torch.tensor([[float('inf')]*3,[float('nan')]*3])
    for wrap in (lambda f: f, functionalize):
        g, = torch.autograd.grad(wrap(lambda p: mse(p, y, yb1=bad, lam=torch.ones(2)))(pred), pred)
        close(g, 2*(pred-y).detach()/6)

# ---- devices

class Copies(TorchDispatchMode):
    "Copies between devices, and whether they may be late"
    def __init__(self):
        super().__init__()
        self.seen = []
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kw = kwargs or {}
        to = kw.get('device')
        if func is torch.ops.aten._to_copy.default and to is not None and to!=args[0].device:
            self.seen.append((args[0].device.type,to.type,kw.get('non_blocking', False)))
        return func(*args, **kw)

def on_card(*shape, dtype=torch.float32): return torch.zeros(shape, dtype=dtype, device='cuda')

def test_copies_to_the_processor():
    "What comes from a card to the processor is waited for; what goes there is not"
    with FakeTensorMode():
        x,lam,perm,boxes = torch.zeros(4,2,4,4),on_card(4),on_card(4, dtype=torch.long),on_card(4,2,2, dtype=torch.long)
        with Copies() as c:
            mixup_batch(x, perm=perm, lam=lam)
            cutmix_batch(x, perm=perm, boxes=boxes)
            cutmix_batch(x, perm=perm, lam=lam)
            mse(x, x.clone(), yb1=x.clone(), lam=lam)
            mix_targets(x, x, lam)
        assert len(c.seen)>=7 and {o[:2] for o in c.seen}=={('cuda','cpu')} and not any(late for *_,late in c.seen)
        with Copies() as c: mixup_batch(x.to('cuda'), perm=torch.zeros(4).long(), lam=torch.zeros(4))
        assert c.seen and all(o[:2]==('cpu','cuda') for o in c.seen[1:])

@pytest.mark.parametrize('device', ('meta',) + ('cuda',)*torch.cuda.is_available())
def test_default_device(device):
    "A default device that the user set changes nothing"
    x = images()
    old = [mixup_batch(x, [0,1,2,3], lam=.3, perm=[1,2,3,0]), cutmix_batch(x, [0,1,2,3], perm=[1,2,3,0], boxes=[[[0,2],[1,3]]]),
        cutmix_batch(x, lam=.4, perm=[1,2,3,0], generator=torch.Generator().manual_seed(0))]
    torch.set_default_device(device)
    try:
        new = [mixup_batch(x, [0,1,2,3], lam=.3, perm=[1,2,3,0]), cutmix_batch(x, [0,1,2,3], perm=[1,2,3,0], boxes=[[[0,2],[1,3]]]),
            cutmix_batch(x, lam=.4, perm=[1,2,3,0], generator=torch.Generator('cpu').manual_seed(0))]
        drawn = [*mixup_batch(x, Y), *cutmix_batch(x, Y), *cutmix_batch(x, Y, minmax=(.2,.5)), draw_perm(4), draw_lam(4, 1), draw_lam(4, 0),
            perm_within([0,0,1])]
        loss = ce(logits_ := LOGITS, Y, yb1=Y1, lam=.3)
        with pytest.raises(ValueError, match=r'lam in \[0, 1\]'): mixup_batch(x, lam=1.5)
        with pytest.raises(ValueError, match='Expected perm in'): mixup_batch(x, perm=[0,1,2,9])
        with pytest.raises(ValueError, match='0 <= lo <= hi'): cutmix_batch(x, boxes=[[[0,9],[0,1]]])
    finally: torch.set_default_device(None)
    for a,b in zip(old, new):
        for o,p in zip(a, b): assert o is p is None or torch.equal(o, p)
    assert {o.device.type for o in (*drawn,loss)}=={'cpu'}
LOGITS = logits()

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no card here')
@pytest.mark.parametrize('mix', (mixup_batch,cutmix_batch))
def test_generators_on_either_side(mix):
    for where,gen_where in itertools.product(('cpu','cuda'), repeat=2):
        g = lambda: torch.Generator(gen_where).manual_seed(0)
        a,b = (mix(images().to(where), Y.to(where), generator=g()) for _ in 'ab')
        assert all(torch.equal(o, p) and o.device.type==where for o,p in zip(a, b))

# ---- dimensions in any order in memory

def in_memory(order, shape):
    "Values of `shape` whose dimensions lie in memory in `order`"
    x = torch.randn([shape[d] for d in order])
    return x.permute([order.index(d) for d in range(len(shape))])
orders = {str(o): in_memory(o, s) for o,s in (((1,0),(4,3)), ((1,0),(4,1)), ((1,0,2),(4,3,5)), ((0,2,1),(4,3,5)), ((2,1,0),(4,3,5)), ((2,0,1),(4,3,5)),
    ((0,1,3,2),(4,3,5,6)), ((3,2,1,0),(4,3,5,6)), ((0,3,2,1),(4,2,5,1)), ((1,2,0,3),(4,2,6,300)))}
orders |= dict(grey=torch.randn(4,1,6,6).to(memory_format=torch.channels_last), one=torch.randn(1,6,5,5).to(memory_format=torch.channels_last),
    grey_plain=torch.randn(4,1,6,6), pixel=torch.randn(4,3,1,1).to(memory_format=torch.channels_last), large=in_memory((1,0,2,3), (4,3,160,160)))

@pytest.mark.parametrize('order', orders)
@pytest.mark.parametrize('how', ('plain','grad','lam_grad','image','aot','dynamic'))
@pytest.mark.parametrize('mix', (mixup_batch,cutmix_batch))
def test_dense_strides_are_kept(order, how, mix):
    "A mixed batch is laid out in memory as the batch was, so that the model computes on it as on any other"
    from fastai.torch_core import TensorImage
    x = orders[order].detach()
    n,dims = len(x),range(1, x.ndim)
    assert x.stride()==torch.empty_like(x).stride()
    perm,lam,boxes = torch.arange(n).roll(1),torch.tensor([1.,.3,0.,.6])[:n],torch.tensor([[[0,1]]*len(dims),[[0,k] for k in x.shape[1:]]]*2)[:n]
    kw = dict(perm=perm, lam=lam.clone().requires_grad_(how=='lam_grad')) if mix is mixup_batch else dict(perm=perm, boxes=boxes, dims=tuple(dims))
    want = x.clone() if n==1 else slow_mix(x, lam, perm) if mix is mixup_batch else torch.stack([x[perm[i]] if i%2 else x[i] for i in range(n)])
    if mix is cutmix_batch:
        for i in range(0, n, 2): want[(i,*[0]*len(dims))] = x[(perm[i],*[0]*len(dims))]
    def f(x): return mix(x, **kw)[0]
    torch._dynamo.reset()
    run = torch.compile(f, backend='aot_eager', fullgraph=True, dynamic=how=='dynamic') if how in ('aot','dynamic') else f
    got = run(x.clone().as_subclass(TensorImage) if how=='image' else x.clone().requires_grad_(how=='grad'))
    close(got.detach().as_subclass(torch.Tensor), want)
    if how in ('plain','image'): assert got.stride()==x.stride()
    else: assert [s for s,k in zip(got.stride(), x.shape) if k>1]==[s for s,k in zip(x.stride(), x.shape) if k>1] # PyTorch sets the others as it likes

@pytest.mark.parametrize('order', orders)
def test_partners_are_laid_out_alike(order):
    x = orders[order]
    got = take(x, torch.arange(len(x)).roll(1))
    assert got.stride()==x.stride() and torch.equal(got, x.roll(1, 0))

@pytest.mark.parametrize('order', orders)
def test_dense_strides_are_kept_on_other_devices(order):
    "Where boxes are not read, and the mix is one gather and one selection"
    x = orders[order].to('meta')
    assert mixup_batch(x)[0].stride()==cutmix_batch(x, dims=-1)[0].stride()==x.stride()
