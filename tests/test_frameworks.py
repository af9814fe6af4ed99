"""The recipes for Lightning and for the Trainer of Hugging Face, with the real packages, from the very cells of the page

A test is skipped where its package is missing."""
import contextlib, os, warnings
from pathlib import Path
import pytest, torch, torch.nn.functional as F
from torch import nn
from fastcore.nbio import read_nb
import fastmix.all as fm

page = Path(__file__).parent.parent/'nbs'/'tutorials'/'recipes.ipynb'

def cells(heading):
    "Code cells of a section that are shown"
    res,inside = [],False
    for c in read_nb(page).cells:
        if c.cell_type=='markdown' and c.source.startswith('## '): inside = c.source.startswith(f'## {heading}\n')
        elif inside and c.cell_type=='code' and 'hide' not in c.directives: res.append(c)
    return res

def run(heading, n=None):
    "What is defined by the first `n` cells of a section, which need what the page imports and its digits"
    first = [c for c in read_nb(page).cells if c.cell_type=='code' and 'hide' not in c.directives
        and any(o in c.source for o in ('from fastai','digits = load_digits','import DataLoader as TorchLoader'))]
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for c in first+cells(heading)[:n]: exec(compile(c.source, c.id, 'exec'), names)
    return names

def mixed_loss(pred, y, perm, lam):
    "Mean of cross-entropies, a sample at a time"
    lam = lam.expand(len(y)).tolist()
    return sum(l*F.cross_entropy(p[None], y[i:i+1]) + (1-l)*F.cross_entropy(p[None], y[j:j+1]) for i,(p,j,l) in enumerate(zip(pred, perm, lam)))/len(y)

def mixed(x, perm, lam): return torch.stack([l*a + (1-l)*x[j] for a,j,l in zip(x, perm, lam.expand(len(x)).tolist())])

def test_recipes_are_on_the_page():
    for heading in ('Lightning','Hugging Face Trainer'): assert len(cells(heading))>4

# Lightning

def trainer(names, **kw):
    logger = names['logging'].getLogger('lightning.pytorch')
    logger.setLevel('ERROR')
    kw = dict(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, accelerator='cpu') | kw
    return names['lightning'].Trainer(**kw)

def batches(n=4, bs=10): return [(torch.randn(bs,1,8,8), torch.arange(bs)%10) for _ in range(n)]

@contextlib.contextmanager
def silent():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield

def test_lightning_page():
    pytest.importorskip('lightning')
    names = run('Lightning')
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in names['loop'].model.modules())

@pytest.mark.parametrize('accumulate', (1,2))
def test_lightning_takes_the_steps_of_the_mixed_loss(accumulate):
    "The pure function: weights after two batches are those of a loop by hand from the same draws"
    pytest.importorskip('lightning')
    names = run('Lightning', 2)
    class Steps(names['Lit']):
        def configure_optimizers(self): return torch.optim.SGD(self.parameters(), .5)
    data,model = batches(2),names['net']()
    by_hand = names['deepcopy'](model)
    torch.manual_seed(3)
    with silent(): trainer(names, accumulate_grad_batches=accumulate).fit(Steps(model), names['TorchLoader'](data, batch_size=None))
    torch.manual_seed(3)
    with contextlib.suppress(StopIteration): next(iter(names['TorchLoader'](data, batch_size=None))) # a loader draws a seed, too
    opt = torch.optim.SGD(by_hand.parameters(), .5)
    for k,(x,y) in enumerate(data):
        _,_,lam = draws = fm.mixup_batch(x, torch.arange(10))
        perm = draws[1]
        (mixed_loss(by_hand(mixed(x, perm, lam)), y, perm, lam)/accumulate).backward()
        if (k+1)%accumulate==0:
            opt.step()
            opt.zero_grad()
    for a,b in zip(model.parameters(), by_hand.parameters()): torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)

@pytest.mark.parametrize('mixer', (fm.MixUp(),fm.CutMix(),fm.ManifoldMixUp(layers='2', mix_input=False),fm.MixChoice(fm.MixUp(),None)))
def test_lightning_with_a_loop_has_the_loss_of_the_definition(mixer):
    pytest.importorskip('lightning')
    names,losses = run('Lightning', 6),[]
    class Checked(names['LitLoop']):
        def training_step(self, batch, batch_idx):
            seen = []
            class Loop:
                def __call__(_, *args):
                    seen.append(loop(*args))
                    return seen[0]
            self.loop = Loop()
            loss,(x,y) = super().training_step(batch, batch_idx),batch
            b,net = seen[0],self.model
            if b.lam is None: want = F.cross_entropy(net(x), y)
            else:
                perm,lam = b.perm,b.lam
                xm = x if b.inside else b.xb[0]
                if isinstance(mixer, fm.CutMix): xm = torch.stack([_pasted(x, i, j, box) for i,(j,box) in enumerate(zip(perm, b.boxes.tolist()))])
                elif not b.inside: xm = mixed(x, perm, lam)
                h = net[2](net[1](net[0](xm)))
                want = mixed_loss(net[3](mixed(h, perm, lam) if b.inside else h), y, perm, lam)
            losses.append((loss.item(),want.item()))
            return loss
    with silent(),fm.PlainLoop(mixer, names['net'](), nn.CrossEntropyLoss()) as loop:
        trainer(names).fit(Checked(loop), names['TorchLoader'](batches(8), batch_size=None))
    assert len(losses)==8
    for got,want in losses: assert got==pytest.approx(want, abs=1e-5)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loop.model.modules())

def _pasted(x, i, j, box):
    res,((a,b),(c,d)) = x[i].clone(),box
    res[:,a:b,c:d] = x[j,:,a:b,c:d]
    return res

# Hugging Face

@pytest.fixture(scope='module')
def hugging():
    pytest.importorskip('transformers')
    pytest.importorskip('accelerate')
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'
    return run('Hugging Face Trainer')

def test_trainer_page(hugging): assert hugging['acc']>.8

@pytest.mark.parametrize('accumulate', (1,2))
@pytest.mark.parametrize('size', (40,))
def test_trainer_takes_the_steps_of_the_mixed_loss(hugging, accumulate, size, tmp_path):
    "Gradients over `size` sentences are those of embeddings that are mixed by hand, with the union of both masks, whatever is accumulated"
    h,seen,grads = hugging,[],[]
    torch.manual_seed(0)
    h['config'].hidden_dropout_prob = h['config'].attention_probs_dropout_prob = 0.
    bert = h['transformers'].BertForSequenceClassification(h['config'])
    by_hand = h['deepcopy'](bert)
    class Note(h['transformers'].TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kw): grads.append([p.grad.clone() for p in bert.parameters()])
    args = h['transformers'].TrainingArguments(str(tmp_path), num_train_epochs=1, per_device_train_batch_size=size//accumulate, use_cpu=True,
        gradient_accumulation_steps=accumulate, max_grad_norm=0., save_strategy='no', logging_strategy='no', report_to='none', disable_tqdm=True)
    trainer = h['MixTrainer'](bert, args, train_dataset=h['texts'][:size], callbacks=[Note()])
    trainer.remove_callback(h['transformers'].PrinterCallback)
    assert trainer.model_accepts_loss_kwargs # so that the line on the page is needed
    trainer.model_accepts_loss_kwargs = False
    loop = fm.PlainLoop(fm.MixUp(), h['Logits'](bert), nn.CrossEntropyLoss())
    def noted(inputs, labels):
        seen.append((loop(inputs, labels), {k:v.clone() for k,v in inputs.items()}, labels))
        return seen[-1][0]
    trainer.loop = noted
    with loop: trainer.train()
    assert len(seen)==accumulate and len(grads)==1
    table = by_hand.bert.embeddings.word_embeddings.weight
    for b,inputs,y in seen:
        mask = inputs['attention_mask']
        both = torch.stack([m if l==1 else torch.maximum(m, mask[j]) for m,j,l in zip(mask, b.perm, b.lam.tolist())])
        pred = by_hand(inputs_embeds=mixed(table[inputs['input_ids']], b.perm, b.lam), attention_mask=both).logits
        (mixed_loss(pred, y, b.perm, b.lam)/accumulate).backward()
    worst = max(float((g-p.grad).abs().max()) for g,p in zip(grads[0], by_hand.parameters()) if p.grad is not None)
    assert worst<1e-4, worst
    assert max(float(g.abs().max()) for g in grads[0])>1e-2

def test_trainer_evaluates_plainly(hugging, tmp_path):
    h = hugging
    bert = h['transformers'].BertForSequenceClassification(h['config']).eval()
    args = h['transformers'].TrainingArguments(str(tmp_path), use_cpu=True, report_to='none', disable_tqdm=True)
    trainer = h['MixTrainer'](bert, args, eval_dataset=h['texts'][:32])
    trainer.remove_callback(h['transformers'].PrinterCallback)
    got = trainer.evaluate()['eval_loss'] # needs no loop
    batch = {k:torch.stack([o[k] for o in h['texts'][:32]]) for k in ('input_ids','attention_mask')}
    with torch.no_grad(): want = F.cross_entropy(bert(**batch).logits, torch.stack([o['labels'] for o in h['texts'][:32]]))
    assert got==pytest.approx(want.item(), abs=1e-5)
