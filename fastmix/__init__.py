"""MixUp, CutMix, manifold mixup and their kin for fastai and PyTorch, exact in their losses

A mixed batch holds blends of samples in place of the samples, and its loss asks for the same blend of their labels. A network that never sees the same sample twice finds it hard to learn its training set by heart, and often generalises better. fastmix does the mixing: as callbacks for any fastai `Learner`, whatever it is trained to do, and as pure functions for any PyTorch loop.

Every sample `i` has a partner `perm[i]` in its batch and keeps a share `lam[i]` of itself. Its loss is `lam[i]` times that of its own label plus `1-lam[i]` times that of its partner's: exactly, for losses of fastai, of PyTorch and your own, where classes have weights or labels are ignored too. Nothing of yours is changed on the way, neither the data nor the loss function, and no hook stays in the model when training ends, however it ends.

Modules:

- `fastmix.callback`: Callbacks that mix each training batch, for any task that fastai trains
- `fastmix.chance`: Run a model with a fixed value in place of every random draw
- `fastmix.checks`: Mistakes are told before anything is trained
- `fastmix.choice`: `MixChoice`: MixUp for some batches and CutMix for others, or for some samples and others of one batch
- `fastmix.compare`: Train with each mix over several seeds, and see which differences are more than noise
- `fastmix.draw`: What is random in a mix: who meets whom, how much each keeps, and where the box goes
- `fastmix.fits`: Try a model once at the start of a fit, and remember where and how it can be mixed
- `fastmix.fmix`: Cut along the outlines of low-frequency noise instead of boxes
- `fastmix.hooks`: Mix what layers return, with hooks that are gone when training ends, however it ends
- `fastmix.loop`: A mixer without a Learner: several inputs, masks, tokens and layers in any PyTorch training loop
- `fastmix.loss`: `MixUpLoss`: the exact loss on two sets of targets, for any loss function
- `fastmix.manifold`: Mix the output of one layer, drawn anew for every batch, in a single forward pass
- `fastmix.metric`: A metric that counts each target of a mixed batch by its share
- `fastmix.mix`: MixUp and CutMix of a batch as pure functions, for any PyTorch training loop
- `fastmix.mixed`: A batch as it will be trained on: its inputs, both sets of targets, what was drawn for it, and its loss
- `fastmix.mixer`: `Mixer`, the callback that mixes each training batch and its loss, whatever the task
- `fastmix.nested`: Take the tensors out of batches of any structure, and put others in their places
- `fastmix.noise`: When is a difference between two mixes more than the noise between seeds?
- `fastmix.output`: Mix the predictions of a plain batch before the loss
- `fastmix.pictures`: The parts that `show_mixed_batch` is made of: decode samples, label them, draw them
- `fastmix.places`: Find and check the layers at whose output a model can be mixed
- `fastmix.proof`: Run a model on a few rows, with chance switched off and its state put back, and see whether mixing at a place mixes its predictions
- `fastmix.resizemix`: Paste a shrunken copy of the partner's whole image
- `fastmix.rows`: Choose a few samples of a batch that differ, and find out what masks them
- `fastmix.runs`: What finished runs say: means, differences beyond the noise, curves
- `fastmix.settings`: Check what a user sets, and print it
- `fastmix.show`: See what a mixer does to your own data, before you train on it
- `fastmix.stack`: `stack_x=True` hands both samples and their share to the model; `StackedModel` makes a model that takes them
- `fastmix.state`: Keep all that a forward pass may change in a model, and put it back to the last bit
- `fastmix.store`: A file of finished runs that several processes and machines may share"""

__version__ = "0.1.0"
