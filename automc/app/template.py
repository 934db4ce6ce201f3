"""The commented study that ``automc init`` writes."""

TEMPLATE = """\
# A study: which model to compress, how far, and what to weigh against what.
# Check it with "automc check study.yaml", run it with "automc search study.yaml".
# Paths are seen from this file's folder. A line that begins with "# " + a key shows that key's default.

# name: study                   # letters, digits, . _ -; default: this file's name

# The trained network: a name of the zoo (digits_net comes with its weights; resnet20, mobilenet_v2, ... need yours), or
# a function that returns a torch.nn.Module, written package.module:function or file.py:function. In the long form:
#   model: {name: "model.py:build", settings: {depth: 20}, weights: weights.safetensors}
model: digits_net

# Images and labels: digits (bundled, 8x8 grey), parquet, folder, npz, or a function of your own. In the long form:
#   data: {name: npz, settings: {path: data.npz}}
data: digits

# What the network is for: classification, regression, segmentation, detection, language_modelling, embeddings, or a
# task of your own (package.module:function or file.py:function). It says which metrics there are. In the long form:
#   task: {name: segmentation, settings: {ignore_index: 255}}
# task: classification

# What the search may change: a bundled space (prune, bits, joint, kd, joint_kd, hardware, low_rank, sparse,
# everything), a YAML file of your own, or the rules themselves:
#   space:
#     rules:
#       - operator: prune                  # every group of coupled channels
#         settings: {prune_ratio: {low: 0, high: 0.8, step: 0.1}}
#       - operator: quantize               # every layer: a choice of bits
#         settings: {weight_bits: [2, 3, 4, 6, 8], activation_bits: 8}
#       - operator: quantize               # the first and the last layer: 8 bits
#         index: [0, -1]
#         settings: {weight_bits: 8, activation_bits: 8}
space: joint_kd

# Metrics to optimise, each with its direction. The result is the front: what no other trial beats in all of them.
objectives: {top1: maximize, size_bytes: minimize}

# What a trial must keep to be on the front: "metric <= number" or "metric >= number".
constraints:
  - "macs_ratio <= 0.5"           # at most half the multiply-accumulates of the original

# Who proposes the next policy: portfolio (several at once), allocate, evolve, ddpg, tpe, nsga2, uniform, ...
proposer: portfolio
# stopper: never                # or median: gives up on trials that train worse than most

# Levels of evaluation. The first takes every trial; a later one trains the best share of the one before for that
# many optimiser steps. Without steps, settings of distillation have nothing to act on.
rungs:
  - {steps: 0}                  # no training: batch norms are re-estimated only
  - {steps: 200, share: 0.25}   # the best quarter: 200 steps of distilled repair

# When to end: after this many trials, or this many seconds.
budget: {trials: 60, seconds: null}

# Who evaluates: 0 is this process, more are Ray workers. The window must not be below the count: up to there a seed
# gives the same trials with any number of workers. A trial above timeout_s or memory_mb is ended and fails.
workers: {count: 2, window: 4, address: null, timeout_s: null, memory_mb: null, retries: 2}

# storage: sqlite:///automc.db  # the trial database, seen from where automc is run; or postgresql://...
seed: 0
"""
