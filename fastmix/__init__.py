"""MixUp, CutMix, manifold mixup and their kin for fastai and PyTorch, exact in their losses

Modules:

- `fastmix.callback`: Callbacks that mix each training batch, for any task that fastai trains
- `fastmix.choice`: `MixChoice`: MixUp for some batches and CutMix for others, or for some samples and others of one batch
- `fastmix.compare`: Train with each mix, over several seeds, and say which differences are more than noise
- `fastmix.draw`: What is random in a mix: who meets whom, how much each keeps, and where the box goes
- `fastmix.fmix`: Cut along the outlines of low-frequency noise instead of boxes
- `fastmix.loss`: `MixUpLoss`: the exact loss on two sets of targets, for any loss function
- `fastmix.manifold`: Mix the output of one layer, drawn anew for every batch, in a single forward pass
- `fastmix.metric`: A metric that counts each target of a mixed batch by its share
- `fastmix.mix`: MixUp and CutMix of a batch as pure functions, for any PyTorch training loop
- `fastmix.mixer`: `Mixer`, the callback that draws for each training batch, mixes it and blends its losses, whatever the task
- `fastmix.output`: Mix the predictions of a plain batch before the loss
- `fastmix.resizemix`: Paste a shrunken copy of the partner's whole image
- `fastmix.show`: What a mixer makes of your own data, before and after training on it
- `fastmix.stack`: `stack_x=True` hands both samples and their share to the model; `StackedModel` makes a model that takes them"""

__version__ = "0.1.0"
