"""fastai's MixUp and CutMix for any loss and any task, proved right

A mixed batch holds blends of samples, and its loss asks for the same blend of their labels. A network that never sees the same sample twice finds it hard to learn its training set by heart, and often generalises better. fastmix mixes in any fastai `Learner`, whatever its task, and in any PyTorch loop.

Sample `i` of a batch has a partner `perm[i]` and keeps a weight `lam[i]` of itself. Its loss is `lam[i]` times the loss for its own label plus `1-lam[i]` times the loss for its partner's label. This holds also where classes have weights or labels are ignored. "Proved right" means two things. A loss that fastmix does not know gets one lambda for the whole batch, which is right for every loss but those that compare samples with each other, and these are announced. A layer is mixed only if a trial on your own model shows that its predictions follow the labels. Your data and your loss function are never changed, and no hook stays in the model when training ends, however it ends.

`fastmix.all` has every public name. Mixers for a Learner are in `fastmix.callback`, `fmix`, `resizemix`, `manifold`, `output` and `choice`, on the base in `mixer`. Pure functions for any loop are in `draw`, `mix` and `loss`, and `PlainLoop` in `loop`. `show` draws mixed batches, `metric` has `MixAccuracy`, `stack` has `StackedModel`, and `compare` finds out which mix helps.

Modules:

- `fastmix.compare`: Train with each mix over several seeds, and see which differences are more than noise
- `fastmix.mix`: MixUp and CutMix of a batch as pure functions, for any PyTorch training loop
- `fastmix.mixer`: `Mixer`, the callback that mixes each training batch and its loss, whatever the task
- `fastmix.proof`: Run a model on a few rows, with fixed randomness and its state restored, to see whether mixing at a place mixes its predictions
- `fastmix.show`: See what a mixer does to your own data, before you train on it"""

__version__ = "0.2.0"
