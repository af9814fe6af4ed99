"""Models that people train, from PyPI and with small random weights: the prediction of a mixed batch is that of the mixture that its
labels name

Every lambda is 0, so that sample i has to be predicted as its partner is in the plain batch, wherever in the model it is mixed. And what
mixes nothing changes nothing: with alpha=0 a fit ends with the weights, buffers and attributes of a fit without a mixer, to the last
bit."""
import pytest, torch, torch.nn.functional as F
from copy import deepcopy
from functools import partial
from fastcore.basics import noop
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from oracle import clone, cut, lerp, learner, message, near, quiet_fit, rows, swapped, verdict, watch, with_lam
from fastmix.all import CutMix, ManifoldMixUp, MixUp, OutputMixUp

N,K = 8,3 # samples in a batch, classes

# Data

def images(size=32, c=3): return lambda n: (torch.randn(n, c, size, size),)
def volumes(size=16): return lambda n: (torch.randn(n, 1, size, size, size),)
def series(n): return (torch.randn(n, 3, 40),)
def table(n): return torch.stack([torch.randint(0, k, (n,)) for k in (5,7,11)], 1),torch.randn(n, 4)
def words(n, t=12, v=40): return (torch.randint(2, v, (n, t)),)
def padded(n, t=12, v=40):
    "Tokens and a mask of ones, padding behind the tokens"
    m = (torch.arange(t)<torch.randint(3, t+1, (n,1))).long()
    return words(n, t, v)[0]*m,m
def padded_words(n): return padded(n)[:1]

# Models

class Logits(nn.Module):
    "Text model of Hugging Face that says logits, given tokens and perhaps a mask"
    def __init__(self, m): super().__init__(); self.m = m
    def forward(self, ids, mask=None): return self.m(input_ids=ids, attention_mask=mask).logits
class Pixels(nn.Module):
    def __init__(self, m): super().__init__(); self.m = m
    def forward(self, x): return self.m(pixel_values=x).logits
class Key(nn.Module):
    "One entry of what a model returns"
    def __init__(self, m, key): super().__init__(); self.m,self.key = m,key
    def forward(self, *x): return self.m(*x)[self.key]

class Levels(nn.Module):
    "The outputs of all levels of a model with deep supervision, one by one"
    def __init__(self, m): super().__init__(); self.m = m
    def forward(self, x): return self.m(x).unbind(1)

def tv(name, **kw): return lambda m: m.get_model(name, weights=None, num_classes=K, **kw)
def tim(name, **kw): return lambda m: m.create_model(name, num_classes=K, **kw)
def hf(config, model, wrap=Logits, **kw):
    def make(m):
        cfg = getattr(m, config)(num_labels=K, **kw)
        return wrap(getattr(m, model)(cfg))
    return make
BERT = dict(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=16,
    hidden_dropout_prob=0.,
    attention_probs_dropout_prob=0., attn_implementation='eager')
DISTIL = dict(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=16, dropout=0., attention_dropout=0.,
    seq_classif_dropout=0.)
GPT = dict(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=16, resid_pdrop=0., embd_pdrop=0., attn_pdrop=0., pad_token_id=0)
VIT = dict(image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
    hidden_dropout_prob=0., attention_probs_dropout_prob=0.)
def bert(m): return hf('BertConfig', 'BertForSequenceClassification', **BERT)(m)
def lora(**kw):
    def make(m):
        import transformers
        cfg = transformers.BertConfig(num_labels=K, **BERT)
        return Logits(m.get_peft_model(transformers.BertForSequenceClassification(cfg),
            m.LoraConfig(task_type='SEQ_CLS', r=2, init_lora_weights=False, **kw)))
    return make

def learner_body(m):
    from fastai.vision.learner import create_body, create_head
    import torchvision
    body = create_body(torchvision.models.squeezenet1_1(weights=None), pretrained=False, cut=-1)
    return nn.Sequential(body, create_head(512, K, ps=0.))
def fastai_unet(m):
    from fastai.vision.models.unet import DynamicUnet
    conv = lambda a, b: nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
    return DynamicUnet(nn.Sequential(conv(3, 8), conv(8, 16), conv(16, 32)), K, (32,32))
def fastai_xresnet(m): return m.XResNet(m.ResBlock, 1, [1,1,1,1], n_out=K, stem_szs=(8,8,64), widen=.25)
def fastai_xse(m): return m.XResNet(m.ResBlock, 1, [1,1,1,1], n_out=K, stem_szs=(8,8,64), widen=.25, sa=True, act_cls=nn.SiLU, reduction=4)
def fastai_tabular(m): return m.TabularModel([(5,3),(7,4),(11,6)], 4, K, [16,16], ps=0., embed_p=0.)
def fastai_text(m):
    cfg = m.awd_lstm_clas_config | dict(emb_sz=16, n_hid=20, n_layers=2, output_p=0., hidden_p=0., input_p=0., embed_p=0., weight_p=1e-9)
    return m.get_text_classifier(m.AWD_LSTM, 40, K, seq_len=6, config=cfg)

ROWS = { # package, what makes the model, its inputs, and which mixers may refuse or announce it: they have no place that carries all
    'torchvision: ResNet':('torchvision.models', tv('resnet18'), images(), ()),
    'torchvision: MobileNet':('torchvision.models', tv('mobilenet_v3_small', dropout=0.), images(), ()),
    'torchvision: ShuffleNet':('torchvision.models', tv('shufflenet_v2_x0_5'), images(), ()),
    'torchvision: MnasNet':('torchvision.models', tv('mnasnet0_5', dropout=0.), images(), ()),
    'torchvision: RegNet':('torchvision.models', tv('regnet_y_400mf'), images(), ()),
    'torchvision: EfficientNet':('torchvision.models', tv('efficientnet_b0', dropout=0., stochastic_depth_prob=0.), images(), ()),
    'torchvision: DenseNet':('torchvision.models', lambda m: m.DenseNet(8, (2,2,2), 16, num_classes=K), images(), ()),
    'torchvision: GoogLeNet with auxiliary heads':('torchvision.models',
        tv('googlenet', aux_logits=True, init_weights=False, dropout=0., dropout_aux=0.), images(64), ()),
    'torchvision: ViT':('torchvision.models', lambda m: m.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=K), images(), ()),
    'torchvision: Swin':('torchvision.models', lambda m: m.SwinTransformer([2,2], 8, [2,2], [2,2], [2,2], num_classes=K,
        stochastic_depth_prob=0.), images(), ()),
    'torchvision: LR-ASPP':('torchvision.models.segmentation',
        lambda m: Key(m.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=K), 'out'), images(), ()),
    'timm: ResNet':('timm', tim('test_resnet'), images(), ()),
    'timm: ViT':('timm', tim('test_vit', img_size=32), images(), ()),
    'timm: ViT with registers':('timm', tim('test_vit3', img_size=32), images(), ()),
    'timm: ViT with relative positions':('timm', tim('test_vit_relpos', img_size=32), images(), ()),
    'timm: ConvNeXt':('timm', tim('test_convnext'), images(64), ()),
    'timm: EfficientNet':('timm', tim('test_efficientnet'), images(64), ()),
    'timm: NFNet':('timm', tim('test_nfnet'), images(64), ()),
    'timm: MambaOut':('timm', tim('test_mambaout'), images(64), ()),
    'timm: BYOBNet':('timm', tim('test_byobnet'), images(64), ()),
    'timm: CoAtNet':('timm', tim('test_coatnet', img_size=64), images(64), ()),
    'fastai: body and head of vision_learner':('fastai.vision.learner', learner_body, images(), ()),
    'fastai: U-Net':('fastai.vision.models.unet', fastai_unet, images(), ()),
    'fastai: XResNet':('fastai.vision.models.xresnet', fastai_xresnet, images(), ()),
    'fastai: XResNet with self-attention':('fastai.vision.models.xresnet', fastai_xse, images(), ()),
    'fastai: tabular model':('fastai.tabular.model', fastai_tabular, table, ()),
    'fastai: AWD-LSTM':('fastai.text.all', fastai_text, words, ()),
    'transformers: BERT':('transformers', bert, words, ()),
    'transformers: BERT with a mask':('transformers', bert, padded, ()),
    'transformers: DistilBERT':('transformers', hf('DistilBertConfig', 'DistilBertForSequenceClassification', **DISTIL), words, ()),
    'transformers: DistilBERT with a mask':('transformers', hf('DistilBertConfig', 'DistilBertForSequenceClassification', **DISTIL),
        padded, ()),
    'transformers: GPT-2':('transformers', hf('GPT2Config', 'GPT2ForSequenceClassification', **GPT), words, ()),
    'transformers: GPT-2 that looks for the last word':('transformers', hf('GPT2Config', 'GPT2ForSequenceClassification', **GPT),
        padded_words, ('MixUp','ManifoldMixUp')),
    'transformers: ViT':('transformers', hf('ViTConfig', 'ViTForImageClassification', Pixels, **VIT), images(), ()),
    'transformers: ViT that returns a ModelOutput':('transformers', hf('ViTConfig', 'ViTForImageClassification', noop, **VIT), images(),
        ()),
    'peft: LoRA on attention':('peft', lora(target_modules=['query','value']), words, ()),
    'peft: LoRA on embeddings too':('peft', lora(target_modules=['query','value','word_embeddings']), words, ()),
    'peft: LoRA with a mask':('peft', lora(target_modules=['query','value','word_embeddings']), padded, ()),
    'smp: U-Net':('segmentation_models_pytorch', lambda m: m.Unet('mobilenet_v2', 3, None, decoder_channels=(16,8,8), classes=K), images(),
        ()),
    'smp: FPN':('segmentation_models_pytorch', lambda m: m.FPN('mobilenet_v2', encoder_weights=None, classes=K, decoder_dropout=0.),
        images(64), ()),
    'smp: U-Net with a label of the image':('segmentation_models_pytorch',
        lambda m: m.Unet('mobilenet_v2', 3, None, decoder_channels=(16,8,8), classes=K, aux_params=dict(classes=K)), images(), ()),
    'monai: U-Net':('monai.networks.nets', lambda m: m.UNet(2, 3, K, (4,8,16), (2,2), num_res_units=1), images(), ()),
    'monai: U-Net of volumes':('monai.networks.nets', lambda m: m.UNet(3, 1, K, (4,8), (2,)), volumes(), ()),
    'monai: DenseNet':('monai.networks.nets', lambda m: m.DenseNet(2, 3, K, 8, 4, (2,2)), images(), ()),
    'monai: U-Net with deep supervision':('monai.networks.nets',
        lambda m: Levels(m.DynUNet(2, 3, K, [3]*4, [1,2,2,2], [2]*3, filters=[4,8,8,8], deep_supervision=True, deep_supr_num=1)), images(),
            ()),
    'tsai: InceptionTime':('tsai.models.InceptionTime', lambda m: m.InceptionTime(3, K, nf=4), series, ()),
    'tsai: LSTM-FCN':('tsai.models.RNN_FCN', lambda m: m.LSTM_FCN(3, K, 40, hidden_size=8, rnn_dropout=0., fc_dropout=0.), series, ())}

def without_chance(model):
    "`model` without dropout, and with numbers in weights that are all zero, which would tell no sample from another"
    for m in model.modules():
        for k in ('p','drop_prob','drop_path_prob','dropout','output_p','hidden_p','input_p','embed_p'):
            if isinstance(getattr(m, k, None), float): setattr(m, k, 0.)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim>1 and not p.any(): nn.init.normal_(p, std=.1)
    return model

def class_loss(pred, y):
    "Cross-entropy of whatever a model returns: logits of images or pixels, several of them, or a ModelOutput"
    return sum(F.cross_entropy(o.flatten(2).mean(2) if o.ndim>2 else o, y) for o in tree_leaves(pred) if isinstance(o, Tensor) and o.ndim>1)

def masked_right(places, b):
    "Under a mask both partners' tokens are seen: from the tokens on, or from a layer on that carries all else"
    yield rows(b.plain, b.perm)
    (x,m),perm = b.x,b.perm
    both,full = m|m[perm],torch.ones_like(m)
    with torch.no_grad(): yield b.model(x[perm], both)
    for k in places(b.model, x, full, perm): yield run_swapped(b.model, k, perm, x, both)

def run_swapped(model, name, perm, *xb):
    "Predictions with the rows that the layer `name` returns put in another order"
    def swap(m, args, out): return rows(out, perm) if isinstance(out, Tensor) else None
    h = model.get_submodule(name).register_forward_hook(swap)
    try:
        with torch.no_grad(): return model(*clone(xb))
    finally: h.remove()

def carrying():
    "Finds layers that carry all but the mask, by trying each with every token seen; once for a model"
    found = []
    def places(model, x, full, perm):
        if not found:
            with torch.no_grad(): want = rows(model(x, full), perm)
            found.extend(k for k,_ in model.named_modules() if k and near(run_swapped(model, k, perm, x, full), want))
        return found
    return places

@pytest.mark.parametrize('name', ROWS)
def test_a_model_is_mixed_as_its_labels_say(name):
    "By MixUp, and by ManifoldMixUp within, where it finds a place by itself"
    package,make,data,may_refuse = ROWS[name]
    m = pytest.importorskip(package, exc_type=ImportError)
    def model():
        torch.manual_seed(1)
        return without_chance(make(m))
    xb = data(3*N)
    bs = cut(N, *xb, torch.randint(0, K, (3*N,)))
    right = partial(masked_right, carrying()) if len(xb)==2 and data is padded else swapped
    for cls,kw in ((MixUp,{}),(ManifoldMixUp,dict(mix_input=False))):
        torch.manual_seed(0)
        log = watch(model(), bs, class_loss, with_lam(cls, 0.)(8., **kw), n_inp=len(xb), plain=model())
        res = verdict(log, right)
        if log.batches:
            plain = log.batches[0].plain
            assert not near(plain, rows(plain, torch.arange(N).roll(1)), .05), 'the model tells no rows apart'
        ok = res=='right' or (cls.__name__ in may_refuse and res in ('refused','warned'))
        assert ok, f'{cls.__name__}: {res}: {log.error and message(log.error)}'

def test_a_linear_unet_interpolates():
    "In fastai's U-Net without anything that bends, predictions are interpolated by the lambdas that were drawn"
    from fastai.vision.models.unet import DynamicUnet, UnetBlock
    body = nn.Sequential(*[nn.Conv2d(a, b, 3, 2, 1) for a,b in ((1,4),(4,8),(8,16))])
    net = DynamicUnet(body, K, (16,16), norm_type=None, act_cls=nn.Identity, last_cross=False)
    for k in (1,2): net.layers[k] = nn.Identity()
    for m in net.modules():
        if isinstance(m, UnetBlock): m.bn = nn.Identity()
        for k,c in m.named_children():
            if isinstance(c, (nn.ReLU,nn.BatchNorm2d)): setattr(m, k, nn.Identity())
    bs = cut(4, torch.randn(24, 1, 16, 16), torch.randint(0, K, (24, 16, 16)))
    for mixer in (MixUp(8.), ManifoldMixUp(8., mix_input=False)):
        assert verdict(watch(deepcopy(net), bs, nn.CrossEntropyLoss(), mixer), lambda b: [lerp(b, b.plain)])=='right'

# What mixes nothing changes nothing

class Part(nn.Module):
    "A model of three layers with something in the middle that remembers"
    def __init__(self): super().__init__(); self.first,self.mid,self.head = nn.Linear(6, 8),nn.Linear(8, 8),nn.Linear(8, K); self.remember()
    def remember(self): pass
    def use(self, h): return h
    def forward(self, x): return self.head(self.use(self.mid(self.first(x).relu())).relu())
class RunningStatistics(Part):
    def remember(self): self.norm,self.inst = nn.BatchNorm1d(8),nn.BatchNorm1d(8, momentum=None, affine=False)
    def use(self, h): return self.inst(self.norm(h))
class QueueOfTensors(Part):
    def remember(self): self.register_buffer('queue', torch.zeros(20, 8)); self.register_buffer('at', torch.zeros((), dtype=torch.long))
    def use(self, h):
        n,i = len(h),int(self.at)
        res = h + .1*self.queue.mean(0)
        self.queue[(i+torch.arange(n))%20] = h.detach()
        self.at.add_(n)
        return res
class ListOfTensors(Part):
    def remember(self): self.queue,self.seen = [],dict(rows=0, last=None)
    def use(self, h):
        res = h + .1*sum(self.queue, torch.zeros(8))
        self.queue.append(h.detach().mean(0))
        if len(self.queue)>3: self.queue.pop(0)
        self.seen['rows'] += len(h)
        self.seen['last'] = h.detach().sum()
        return res
class Counters(Part):
    def remember(self): self.calls,self.rows = 0,torch.zeros(1).long()
    def use(self, h):
        self.calls += 1
        self.rows += len(h)
        return h/(1+.1*self.calls+.01*self.rows)
class WarmUp(Part):
    "Another branch from the fourth call on"
    def remember(self): self.calls,self.other = 0,nn.Linear(8, 8)
    def use(self, h):
        self.calls += 1
        return h if self.calls<4 else self.other(h)
class StatesBetweenBatches(Part):
    def remember(self): self.rnn,self.h = nn.GRU(8, 8),None
    def use(self, h):
        if self.h is None or self.h.shape[1]!=len(h): self.h = torch.zeros(1, len(h), 8)
        out,state = self.rnn(h[None], self.h)
        self.h = state.detach()
        return out[0]
class MomentumEncoder(Part):
    def remember(self): self.teacher = deepcopy(self.mid).requires_grad_(False)
    def use(self, h):
        with torch.no_grad():
            for p,q in zip(self.teacher.parameters(), self.mid.parameters()): p.lerp_(q, .1)
        return h + .1*self.teacher(h)
class ReplacedBuffer(Part):
    "Puts a new tensor in the place of a buffer, as running means often do"
    def remember(self): self.register_buffer('mean', torch.zeros(8))
    def use(self, h):
        self.mean = .9*self.mean + .1*h.detach().mean(0)
        return h-self.mean
class SpectralNorm(Part):
    def remember(self): self.mid = nn.utils.parametrizations.spectral_norm(self.mid)
class OldSpectralNorm(Part):
    def remember(self): self.mid = nn.utils.spectral_norm(self.mid)
class Dropouts(Part):
    def remember(self): self.drop = nn.Dropout(.4)
    def use(self, h): return self.drop(h) + .1*torch.rand(len(h), 1)
class OwnGenerator(Part):
    def remember(self): self.gen = torch.Generator().manual_seed(3)
    def use(self, h): return h + .1*torch.rand(len(h), 1, generator=self.gen)
class Centres(Part):
    "Parameters that forward sets from its first batch"
    def remember(self): self.centre,self.ready = nn.Parameter(torch.zeros(8)),False
    def use(self, h):
        if not self.ready: self.centre.data,self.ready = h.detach().mean(0),True
        return h-self.centre
class FrozenInEval(Part):
    "A part that stays in evaluation mode, with statistics of its own"
    def remember(self): self.norm = nn.BatchNorm1d(8); self.norm.running_mean.add_(.5)
    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self
    def use(self, h): return self.norm(h)
STATEFUL = (RunningStatistics,QueueOfTensors,ListOfTensors,Counters,WarmUp,StatesBetweenBatches,MomentumEncoder,ReplacedBuffer,
    SpectralNorm,OldSpectralNorm,Dropouts,OwnGenerator,Centres,FrozenInEval)

def plain_state(o):
    "Attributes as numbers and tensors"
    if isinstance(o, torch.Generator): return o.get_state()
    if isinstance(o, dict): return {k:plain_state(v) for k,v in o.items() if not isinstance(v, nn.Module)}
    if isinstance(o, (list,tuple)): return [plain_state(v) for v in o]
    return o.detach().clone() if isinstance(o, Tensor) else o if isinstance(o, (int,float,str,bool,type(None))) else type(o)

def snapshot(model):
    "All that the modules of `model` hold: parameters, buffers, attributes, modes, numbers of hooks"
    def state(m): return plain_state({n:len(v) if 'hooks' in n and isinstance(v, dict) else v for n,v in vars(m).items()})
    return {k:state(m) for k,m in model.named_modules()}

def differences(a, b, tol, at=''):
    "Where two snapshots differ: numbers by more than `tol`, all else at all"
    if isinstance(a, dict):
        return [f'{at}.{k} is in one only' for k in set(a)^set(b)] + [o for k in a if k in b for o in differences(a[k], b[k], tol,
            f'{at}.{k}')]
    if isinstance(a, list) and isinstance(b, list):
        return [o for i,p in enumerate(zip(a, b)) for o in differences(*p, tol, f'{at}.{i}')]+[at]*(len(a)!=len(b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape!=b.shape or a.dtype!=b.dtype: return [f'{at}: {tuple(a.shape)} for {tuple(b.shape)}']
        if torch.equal(a, b) or (tol and a.is_floating_point() and torch.allclose(a, b, rtol=tol, atol=tol)): return []
        return [f'{at}: off by {float((a.double()-b.double()).abs().max()):.2g}']
    return [] if a==b and type(a) is type(b) else [f'{at}: {a!r} for {b!r}']

def trained(make, mixer=None):
    "A model trained for two epochs of three batches, from one seed"
    torch.manual_seed(5)
    model,bs = make(),cut(N, torch.randn(3*N, 6), torch.randint(0, K, (3*N,)))
    learn = learner(model, bs, nn.CrossEntropyLoss(), *([] if mixer is None else [mixer]))
    torch.manual_seed(7)
    quiet_fit(learn, 2, .1)
    return model,torch.get_rng_state()

def own(): return torch.Generator().manual_seed(11)
NOTHING = {
    'MixUp':lambda: MixUp(0., generator=own()), 'ManifoldMixUp':lambda: ManifoldMixUp(0., generator=own()),
    'ManifoldMixUp within':lambda: ManifoldMixUp(0., mix_input=False, generator=own()),
    'ManifoldMixUp at a named layer':lambda: ManifoldMixUp(0., layers='first', mix_input=False, generator=own()),
    'OutputMixUp':lambda: OutputMixUp(0., generator=own())}

@pytest.mark.parametrize('nothing', NOTHING)
@pytest.mark.parametrize('make', STATEFUL, ids=lambda o: o.__name__)
def test_with_alpha_0_a_fit_ends_as_without_a_mixer(make, nothing):
    "Weights, buffers, attributes, queues, counters, states, and PyTorch's random numbers too, to the last bit"
    (a,rng),(b,rng1) = trained(make),trained(make, NOTHING[nothing]())
    assert not (bad := differences(snapshot(a), snapshot(b), 0)), bad
    assert torch.equal(rng, rng1), 'other random numbers were drawn'

@pytest.mark.parametrize('make', STATEFUL, ids=lambda o: o.__name__)
def test_a_mix_that_keeps_each_sample_whole_changes_nothing(make):
    "Every lambda is 1, which no mixer knows before it draws: whatever it tries on the model first is put back"
    a,rng = trained(make)
    for cls,kw in ((ManifoldMixUp,dict(mix_input=False)),(ManifoldMixUp,dict(layers='first', mix_input=False)),(MixUp,{})):
        b,rng1 = trained(make, with_lam(cls, 1.)(8., generator=own(), **kw))
        assert not (bad := differences(snapshot(a), snapshot(b), 1e-5)), f'{cls.__name__} {kw}: {bad}'
        assert torch.equal(rng, rng1), 'other random numbers were drawn'

def test_with_alpha_0_tokens_and_images_train_as_without_a_mixer():
    "Embeddings that are mixed behind, and boxes that are empty"
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb,self.rnn,self.head,self.calls = nn.Embedding(20, 8),nn.GRU(8, 8, batch_first=True),nn.Linear(8, K),0
        def forward(self, x):
            self.calls += 1
            return self.head(self.rnn(self.emb(x))[1][-1])
    conv = lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, K))
    for make,x,mixers in ((Text,torch.randint(0, 20, (3*N, 5)),(MixUp,ManifoldMixUp)),
        (conv,torch.randn(3*N, 1, 8, 8),(MixUp,CutMix,ManifoldMixUp))):
        ends = []
        for cls in (None,*mixers):
            torch.manual_seed(5)
            model,y = make(),torch.arange(3*N)%K
            quiet_fit(learner(model, cut(N, x, y), nn.CrossEntropyLoss(), *([] if cls is None else [cls(0.)])), 2, .1)
            ends.append(snapshot(model))
        for cls,o in zip(mixers, ends[1:]): assert not (bad := differences(ends[0], o, 0)), f'{cls.__name__}: {bad}'
