"""Every mistake of a user's gets one clear line and exit code 2 before anything is made."""

import gzip
import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image
from torchvision.datasets import CIFAR10

from benchmarks import notebook_loop
from regbench import __main__ as tools
from regbench import data
from regbench.commands import exit_code, notebook, report, sweep
from tests.conftest import TINY

GOOD = {"dataset": "digits", "model": TINY, "reg": "l1", "lam": "1e-3", "seeds": "0", "epochs": "1"}
COMMANDS = {
    "sweep": (sweep.main, GOOD),
    "notebook": (notebook.main, {"dataset": "digits"}),
    "notebook_loop": (notebook_loop.main, {"dataset": "digits"}),
    "report": (report.main, {"MLFLOW_TRACKING_URI": "sqlite:///{stores}/mlflow.db"}),
    "check": (tools.main, {}),
}
# what a message must have one of: the accepted values, or what to do
WAY_OUT = re.compile(
    r"accepted|[;:] (give|take|write|make|choose|leave|put|add|set|unset|delete|replace|train|for several, use)"
    r"|its constructor must take|expected|repair|bring it back|For all (rules|options): "
)
# the command, its options (an environment variable where the name is in capitals) or arguments, a part of the message
CASES = [
    # regularizers
    ("sweep", {"reg": "l3"}, "reg='l3' is unknown; accepted: none, cutout, decoupled_wd, dropout"),
    ("sweep", {"reg": "L1"}, "reg='L1' is unknown; accepted: none, cutout, decoupled_wd"),
    ("sweep", {"reg": "\uff4c\uff11"}, "is unknown; accepted: none, cutout, decoupled_wd"),
    ("sweep", {"reg": "l1_proxy"}, "an import path pkg.module:Class, or a combination as l1+weight_decay@1e-4"),
    ("sweep", {"reg": "l1;l2"}, "reg='l1;l2' is unknown; accepted: none, cutout, decoupled_wd"),
    ("sweep", {"reg": ""}, "reg='' is empty; accepted: one or more of none, cutout, decoupled_wd"),
    ("sweep", {"reg": "l1,,l2"}, "reg='l1,,l2' has an empty item between commas; accepted"),
    ("sweep", {"reg": "l1, l1 "}, "l1 is given more than once; write it once"),
    ("sweep", {"reg": "none"}, "lam has no meaning for reg=none alone"),
    ("sweep", {"reg": "no_such_module:Reg"}, "reg='no_such_module:Reg' cannot be imported (No module named"),
    ("sweep", {"reg": "tests.plugins:Missing"}, "cannot be imported (module 'tests.plugins' has no attribute"),
    ("sweep", {"reg": "tests.plugins:"}, "reg='tests.plugins:' is unknown; accepted: an import path pkg.module:Class"),
    ("sweep", {"reg": ":"}, "reg=':' is unknown; accepted: an import path"),
    ("sweep", {"reg": "a:b:c"}, "reg='a:b:c' cannot be imported (No module named 'a:b'; start in"),
    ("sweep", {"reg": "tests/plugins.py:Log"}, "is the path of a file; write plugins:Log, started in tests or with PYTH"),
    ("sweep", {"reg": "plugins.py:Log"}, "is the path of a file; write plugins:Log, started in that folder or with PYTH"),
    ("sweep", {"reg": "C:\\regs\\mine.py:Log"}, "is the path of a file; write mine:Log, started in C:/regs or with"),
    ("sweep", {"reg": "plugins.py"}, "reg='plugins.py' is unknown; of a file write plugins:Class, started in that"),
    ("sweep", {"reg": "tests.plugins.Log"}, "reg='tests.plugins.Log' is unknown; write tests.plugins:Log; accepted: none"),
    ("sweep", {"reg": "tests.plugins:Missing"}, "tests/plugins.py; its classes: Log, WithoutLams, BadLams"),
    ("sweep", {"reg": "tests.plugins:Outer"}, "is not a subclass of regbench.regularizers.Regularizer; make it one"),
    ("sweep", {"reg": "tests.plugins:instance"}, "is an instance of AsList; give the class itself"),
    ("sweep", {"reg": "xml:X"}, "module 'xml' has no attribute 'X': it is /"),
    ("sweep", {"reg": "needs_missing:X"}, "(No module named 'no_such_package', which needs_missing imports); accepted"),
    ("sweep", {"reg": "broken_base:X"}, "cannot be imported (Odd: never); accepted"),
    ("sweep", {"reg": ".plugins:Log"}, "reg='.plugins:Log' cannot be imported"),
    ("sweep", {"reg": "broken_syntax:X"}, "cannot be imported (SyntaxError: invalid syntax (broken_syntax.py, line 1))"),
    ("sweep", {"reg": "broken_exit:X"}, "(broken_exit ends Python with 3 when it is imported; put"),
    ("sweep", {"reg": "broken_lines:X"}, "cannot be imported (RuntimeError: one line and another)"),
    ("sweep", {"reg": "os:system"}, "is not a subclass of regbench.regularizers.Regularizer; make it one"),
    ("sweep", {"reg": "tests.plugins:not_a_class"}, "is not a subclass of regbench.regularizers.Regularizer"),
    ("sweep", {"reg": "tests.networks:Tiny"}, "is not a subclass of regbench.regularizers.Regularizer"),
    ("sweep", {"reg": "tests.plugins:WithoutLams", "lam": "auto"}, "has no lams of its own; give them"),
    ("sweep", {"reg": "tests.plugins:BadLams", "lam": "auto"}, "has -1 in its lams, which is not a finite number"),
    *[
        ("sweep", {"reg": f"tests.plugins:{name}", "lam": "auto"}, message)
        for name, message in {
            "AsText": "has '123' as lams; accepted: a tuple of different numbers",
            "AsNumber": "has 0.001 as lams; accepted: a tuple of different numbers",
            "AsDict": "has {0.001: 'small'} as lams; accepted: a tuple of different numbers",
            "AsGenerator": "has a generator as lams; accepted: a tuple of different numbers",
            "AsProperty": "has a property as lams; accepted: a tuple of different numbers",
            "Empty": "has empty lams; accepted: a tuple of different numbers",
            "WithZero": "has 0 in its lams, which is not a finite number above 0; for lam 0 take reg=none",
            "Twice": "has 0.001 more than once in its lams; accepted: a tuple of different numbers",
            "TooSmall": "has 1e-40 in its lams, which is outside what float32 holds in full, 1.2e-38 to 3.4e38",
            "BelowText": "has lam_upper_bound='1'; accepted: a number that every lam must be less than",
        }.items()
    ],
    ("sweep", {"reg": "tests.plugins:BelowText"}, "has lam_upper_bound='1'; accepted: a number that every lam"),
    ("sweep", {"reg": "l1,tests.plugins:Mixes"}, "breaks a rule of regularizers: A row does not"),
    ("sweep", {"reg": "tests.plugins:PenaltyAlone"}, "value is only for the log; write penalty(self, w) in its place"),
    ("sweep", {"reg": "tests.plugins:AssignsData"}, "after_step does not change p; write p.add_(...)"),
    ("sweep", {"reg": "tests.plugins:Cholesky"}, "torch.nan_to_num, or write one_by_one = True in the class"),
    ("sweep", {"reg": "tests.plugins:NeedsArgument"}, "a rule of regularizers: The class is made without arguments"),
    # strengths
    ("sweep", {"lam": "-1e-3"}, "lam=-0.001 is not a finite number above 0; accepted: numbers above 0"),
    ("sweep", {"lam": "nan"}, "nan is not a finite number above 0; accepted"),
    ("sweep", {"lam": "inf"}, "inf is not a finite number above 0; accepted"),
    ("sweep", {"lam": "1e400"}, "lam=inf is not a finite number above 0; accepted"),
    ("sweep", {"lam": "1e-50"}, "1e-50 is outside what float32 holds in full, 1.2e-38 to 3.4e38"),
    ("sweep", {"lam": "1e-45"}, "1e-45 is outside what float32 holds in full, 1.2e-38 to 3.4e38"),
    ("sweep", {"lam": "3.41e38"}, "lam=3.41e+38 is outside what float32 holds in full"),
    ("sweep", {"lam": "0"}, "for lam 0 take reg=none"),
    ("sweep", {"lam": "big"}, "'big' is not a number; accepted"),
    ("sweep", {"lam": "AUTO"}, "'AUTO' is not a number; accepted: numbers above 0 separated by commas, as in 1e-4,1e-3"),
    ("sweep", {"lam": "auto,1e-3"}, "'auto' is not a number"),
    ("sweep", {"lam": "1e-3 1e-4"}, "'1e-3 1e-4' is not a number"),
    ("sweep", {"lam": "1_0"}, "'1_0' is not a number"),
    ("sweep", {"lam": "\uff11"}, "is not a number; accepted"),
    ("sweep", {"lam": ""}, "lam='' is empty"),
    ("sweep", {"lam": ","}, "lam=',' is empty"),
    ("sweep", {"lam": "1e-3,0.001"}, "0.001 is given more than once; write it once"),
    ("sweep", {"reg": "dropout", "lam": "0.5,1"}, "lam=1 is too large for reg='dropout'; accepted: numbers above 0 and"),
    ("sweep", {"reg": "l1,one_shot", "lam": "1.5"}, "lam=1.5 is too large for reg='one_shot'; accepted"),
    # seeds
    ("sweep", {"seeds": ""}, "seeds='' is empty; accepted: numbers and ranges"),
    ("sweep", {"seeds": "0-4,3"}, "seed 3 is given more than once; write it once"),
    ("sweep", {"seeds": "4-0"}, "the range 4-0 runs backwards; write 0-4"),
    ("sweep", {"seeds": "-1"}, "'-1' is not a seed; accepted"),
    ("sweep", {"seeds": "one"}, "'one' is not a seed; accepted"),
    ("sweep", {"seeds": "1.0"}, "'1.0' is not a seed; accepted"),
    ("sweep", {"seeds": "0\u20139"}, "'0\u20139' is not a seed; accepted"),  # with an en dash, as from a text
    ("sweep", {"seeds": "\u0660"}, "is not a seed; accepted"),  # Arabic-Indic zero
    ("sweep", {"seeds": "4294967296"}, "4294967296 is too large; accepted: up to 4294967295"),
    ("sweep", {"seeds": "0-99999999"}, "more than 10000 seeds; give fewer"),
    ("sweep", {"seeds": "0-999999999999"}, "'0-999999999999' is not a seed; accepted"),
    ("sweep", {"confirm": "-1"}, "confirm='-1' is not a number of seeds; accepted: a number of fresh seeds, a list"),
    ("sweep", {"confirm": "many"}, "confirm='many' is not a number of seeds; accepted: a number of fresh seeds"),
    ("sweep", {"confirm": "1e1"}, "confirm='1e1' is not a number of seeds; accepted"),
    ("sweep", {"confirm": "1001"}, "confirm='1001' is out of range; accepted: up to 1000 seeds"),
    ("sweep", {"confirm": "9" * 5000}, "is out of range; accepted: up to 1000 seeds"),
    ("sweep", {"confirm": "9-5"}, "confirm='9-5': the range 9-5 runs backwards; write 5-9"),
    ("sweep", {"confirm": "0-9"}, "confirm=0-9: seed 0 is one of seeds=0, on which lam is chosen; give fresh ones"),
    ("sweep", {"seeds": "4294967290", "confirm": "10"}, "there are not so many seeds after 4294967290; give a list"),
    ("sweep", {"baseline": "false", "confirm": "10"}, "a verdict needs `none` and a regularizer; leave baseline=true"),
    ("sweep", {"reg": "none", "lam": "auto", "confirm": "10"}, "a verdict needs `none` and a regularizer; leave"),
    ("sweep", {"lam": "1e-3,1e-2", "val_size": "0", "confirm": "10"}, "leaves nothing to choose lam by; give val_size"),
    # data
    ("sweep", {"dataset": "cifar100"}, "dataset='cifar100' is unknown; accepted: cifar10, digits, fashion_mnist, folder"),
    ("sweep", {"dataset": "CIFAR10"}, "dataset='CIFAR10' is unknown; accepted: cifar10"),
    ("sweep", {"dataset": "folder", "data_dir": "nowhere"}, "/here/nowhere/train: give data_dir="),
    ("sweep", {"dataset": "folder", "data_dir": "{file}"}, "found no folder"),
    ("sweep", {"dataset": "folder", "data_dir": ""}, "data_dir='' is not a folder; accepted: a path"),
    ("sweep", {"dataset": "folder", "data_dir": "a\0b"}, "is not a folder; accepted: a path"),
    ("sweep", {"dataset": "folder", "data_dir": "{no_image}"}, "train/b/1.png is not a readable image (of no format"),
    ("sweep", {"dataset": "folder", "data_dir": "{cut_jpeg}"}, "train/a/2.jpg is not a readable image (image file is tr"),
    ("sweep", {"dataset": "folder", "data_dir": "{bomb}"}, "train/a/2.png is not a readable image (Image size"),
    ("sweep", {"dataset": "folder", "data_dir": "{dangling}"}, "train/a/2.png cannot be read (No such file"),
    ("sweep", {"dataset": "folder", "data_dir": "{pipe}"}, "train/a/2.png cannot be read (not a regular file): replace"),
    ("sweep", {"dataset": "folder", "data_dir": "{empty_class}"}, "has no image for class b; put some there, or remove"),
    ("sweep", {"dataset": "folder", "data_dir": "{no_class}"}, "has no folder of a class in it; put"),
    ("sweep", {"dataset": "folder", "data_dir": "{other_classes}"}, "the same classes; only train/ has 'b'; add it"),
    ("sweep", {"dataset": "folder", "data_dir": "{few}"}, "val_size=2 is out of range for 2 training images in 2 classes"),
    ("sweep", {"dataset": "cifar10", "data_dir": "{archive}"}, "is damaged or cut short (its md5 is not"),
    ("sweep", {"dataset": "fashion_mnist", "data_dir": "{idx}"}, "is damaged or cut short"),
    ("sweep", {"train_size": "5000"}, "train_size=5000 is out of range: this data set has 1437 training images"),
    ("sweep", {"train_size": "few"}, "train_size='few' is not a number of images; accepted: 0 or more, or all"),
    ("sweep", {"train_size": "0"}, "train_size=0 is out of range"),
    ("sweep", {"train_size": "1436"}, "leaves fewer images out than there are classes (10); give at most 1427, or all"),
    ("sweep", {"val_size": "1437"}, "val_size=1437 is out of range for 1437 training images in 10 classes: give 0"),
    ("sweep", {"train_size": "200", "val_size": "300"}, "val_size=300 is out of range for 200 training images"),
    ("sweep", {"val_size": "-5"}, "val_size='-5' is not a number of images"),
    ("sweep", {"val_size": "10%"}, "val_size='10%' is not a number of images; accepted: 0 or more, or auto"),
    ("sweep", {"val_size": "3"}, "val_size=3 is out of range"),
    ("sweep", {"weights": "best"}, "weights='best' is unknown; accepted: all, chosen, none"),
    # networks
    ("sweep", {"model": "resnet"}, "model='resnet' is unknown; accepted: notebook, notebook_bn, resnet8, or an import"),
    ("sweep", {"model": "Notebook"}, "model='Notebook' is unknown; accepted: notebook"),
    ("sweep", {"model": ""}, "model='' is unknown; accepted"),
    ("sweep", {"model": "no_such_module:Net"}, "model='no_such_module:Net' cannot be imported (No module named"),
    ("sweep", {"model": "tests.networks:Missing"}, "cannot be imported"),
    ("sweep", {"model": "tests.networks:not_a_class"}, "is not a subclass of torch.nn.Module; accepted"),
    ("sweep", {"model": "tests.networks:FiveClasses"}, "returns shape (100, 5) on images [100, 3, 32, 32] in tr"),
    ("sweep", {"model": "tests.networks:NeedsArgument"}, "its constructor must take no argument, or num_classes"),
    ("sweep", {"model": "torch.nn:Linear"}, "model='torch.nn:Linear' cannot be built (Linear.__init__() missing"),
    ("sweep", {"model": "broken_nets:Exits"}, "model='broken_nets:Exits' does not run on images [100, 3, 32, 32]"),
    ("sweep", {"model": "broken_nets:Nan"}, "returns NaN or infinity on images [100, 3, 32, 32]"),
    ("sweep", {"model": "broken_nets:Fixed"}, "has no trainable parameter; give it"),
    # numbers
    ("sweep", {"epochs": "0"}, "epochs='0' is out of range; accepted: a whole number from 1 to 1000000"),
    ("sweep", {"epochs": "many"}, "epochs='many' is out of range; accepted: a whole number from 1"),
    ("sweep", {"epochs": "1.5"}, "epochs='1.5' is out of range"),
    ("sweep", {"epochs": "9" * 30}, "is out of range; accepted: a whole number from 1 to 1000000"),
    ("sweep", {"batch_size": "0"}, "batch_size='0' is out of range; accepted: a whole number from 1"),
    ("sweep", {"batch_size": "2000"}, "batch_size=2000 is out of range: only 1294 images are trained on; give a smaller"),
    ("sweep", {"lr": "0"}, "lr='0' is out of range; accepted: a number above 0, at most 100"),
    ("sweep", {"lr": "-0.1"}, "lr='-0.1' is out of range; accepted"),
    ("sweep", {"lr": "nan"}, "lr='nan' is out of range; accepted"),
    ("sweep", {"lr": "0,01"}, "lr='0' is out of range; accepted"),
    ("sweep", {"lr": "0.01,,0.1"}, "lr='' is out of range; accepted"),
    ("sweep", {"lr": "0.01,0.1,1e-2"}, "lr='0.01,0.1,1e-2': 1e-2 is given more than once; write it once"),
    ("sweep", {"momentum": "1"}, "momentum='1' is out of range; accepted: a number of 0 or more, below 1"),
    ("sweep", {"momentum": "-0.1"}, "momentum='-0.1' is out of range; accepted"),
    ("sweep", {"momentum": ""}, "momentum='' is out of range; accepted"),
    ("sweep", {"schedule": "exponential"}, "schedule='exponential' is unknown; accepted: constant, cosine, linear, step"),
    ("sweep", {"schedule": ""}, "schedule='' is unknown; accepted: constant"),
    ("sweep", {"warmup": "-1"}, "warmup='-1' is out of range; accepted: a whole number from 0"),
    ("sweep", {"warmup": "0.5"}, "warmup='0.5' is out of range; accepted: a whole number from 0"),
    ("sweep", {"warmup": "1"}, "warmup=1 is out of range: epochs=1; give 0, or more epochs"),
    ("sweep", {"warmup": "9", "epochs": "5"}, "warmup=9 is out of range: epochs=5; give at most 4, or more epochs"),
    ("sweep", {"optimizer": "adamw"}, "optimizer='adamw' is unknown; accepted: sgd, nesterov, adam"),
    ("sweep", {"optimizer": ""}, "optimizer='' is unknown; accepted: sgd"),
    ("sweep", {"optimizer": "nesterov", "momentum": "0"}, "momentum=0 is out of range: optimizer='nesterov' is a kind"),
    ("sweep", {"optimizer": "adam", "reg": "l1,group_lasso"}, "reg='group_lasso' does not go with optimizer='adam'"),
    ("sweep", {"optimizer": "adam", "reg": "tests.plugins:Chains"}, "or write projection = True in its class if it"),
    ("sweep", {"optimizer": "adam", "reg": "tests.plugins:AlphaOfTau"}, "alpha' must be Number, not Tensor on a matrix"),
    ("sweep", {"average": "swa"}, "average='swa' is unknown; accepted: none, ema"),
    ("sweep", {"augment": "flip"}, "augment='flip' is unknown; accepted: none, flip_crop"),
    ("sweep", {"input_noise": "-0.1"}, "input_noise='-0.1' is out of range; accepted: a number of 0 or more, at most 100"),
    ("sweep", {"input_noise": "nan"}, "input_noise='nan' is out of range; accepted"),
    ("sweep", {"input_noise": "1e400"}, "input_noise='1e400' is out of range; accepted"),
    ("sweep", {"reg": "cutout", "lam": "1"}, "lam=1 is too large for reg='cutout'; accepted: numbers above 0 and below 1"),
    # where and how
    ("sweep", {"backend": "dask"}, "backend='dask' is unknown; accepted: local, ray"),
    ("sweep", {"REGBENCH_CHECKPOINT_SECONDS": "soon"}, "REGBENCH_CHECKPOINT_SECONDS='soon' is out of range; accepted"),
    ("sweep", {"REGBENCH_CACHE": "~nobody_at_all/cache"}, "REGBENCH_CACHE='~nobody_at_all/cache' is not a folder; acc"),
    ("sweep", {"LOKY_MAX_CPU_COUNT": "many"}, "LOKY_MAX_CPU_COUNT='many' is not what libraries take; accepted: a whole"),
    ("sweep", {"JOBLIB_MULTIPROCESSING": ""}, "JOBLIB_MULTIPROCESSING='' is not what libraries take; accepted: a whole"),
    ("report", {"PYTORCH_CUDA_ALLOC_CONF": "big"}, "PYTORCH_CUDA_ALLOC_CONF='big' is not what libraries take; accepted"),
    ("sweep", {"model": "tests.networks:Convolutions", "reg": "dropout", "lam": "0.5"}, "has no dense layer (torch.nn.Li"),
    ("sweep", {"scope": ""}, "scope='' is empty; accepted: one or more of weights, all, no_norm, or patterns of par"),
    ("sweep", {"scope": "conv*,,l1.*"}, "scope='conv*,,l1.*' has an empty item between commas; accepted"),
    ("sweep", {"scope": "conv*,conv*"}, "conv* is given more than once; write it once"),
    ("sweep", {"scope": "weights,l1.bias"}, "scope='weights,l1.bias': weights does not go with patterns; accepted"),
    ("sweep", {"scope": "no_norm,all"}, "no_norm and all are the same parameters of model='tests.networks:Tiny', which"),
    ("sweep", {"scope": "weights,all", "reg": "l1,dropout"}, "reg='dropout' acts on no weights, and would be trained"),
    ("sweep", {"scope": "all,no_norm,all"}, "scope='all,no_norm,all': all is given more than once; write it once"),
    ("sweep", {"scope": "conv1 weight"}, "'conv1 weight' is not a pattern of letters, digits and _.-*?[]!; accepted"),
    ("sweep", {"scope": "l1.*,biases"}, "'biases' matches no parameter of model='tests.networks:Tiny'; accepted: weights"),
    ("sweep", {"precision": "fp8"}, "precision='fp8' is unknown; accepted: float32, tf32, bf16, float64"),
    ("sweep", {"precision": "tf32", "device": "cpu"}, "precision='tf32' needs a CUDA GPU, this is cpu; accepted here"),
    ("sweep", {"engine": "warp"}, "engine='warp' is unknown; accepted: auto, sequential, stacked"),
    ("sweep", {"engine": "stacked", "jobs": "2"}, "jobs=2 is for engine=sequential on a CPU; leave it out"),
    ("sweep", {"engine": "stacked", "model": "tests.networks:Noisy"}, "engine='stacked' cannot train model="),
    ("sweep", {"jobs": "0"}, "jobs='0' is out of range; accepted: a whole number from 1 to 1000, or auto"),
    ("sweep", {"jobs": "many"}, "jobs='many' is out of range; accepted"),
    ("sweep", {"jobs": "999999999"}, "jobs='999999999' is out of range; accepted"),
    ("sweep", {"device": "tpu"}, "device='tpu' is unknown; accepted: auto, cpu, cuda, cuda:N"),
    ("sweep", {"device": "cuda:-1"}, "device='cuda:-1' is unknown; accepted"),
    ("sweep", {"device": "cuda:99"}, "device='cuda:99' is not there: this machine has"),
    ("sweep", {"dry_run": "perhaps"}, "dry_run='perhaps' is neither; accepted: true or false"),
    ("sweep", {"dry_run": ""}, "dry_run='' is neither; accepted: true or false"),
    ("sweep", {"rerun": "2"}, "rerun='2' is neither; accepted: true or false"),
    ("sweep", {"baseline": "none"}, "baseline='none' is neither; accepted: true or false"),
    ("sweep", {"lambda": "1"}, "No such option"),
    ("sweep", ["l1"], "Got unexpected extra argument (l1) For all options: --help"),
    ("sweep", ["--reg"], "Option '--reg' requires an argument."),
    # the tracking store
    ("sweep", {"experiment": ""}, "experiment='' is not a name; accepted: 1 to 500 characters"),
    ("sweep", {"experiment": "x" * 501}, "is not a name; accepted: 1 to 500 characters"),
    ("sweep", {"experiment": "two\nlines"}, "is not a name; accepted: 1 to 500 characters that can be printed"),
    ("sweep", {"MLFLOW_EXPERIMENT_NAME": "x" * 501}, "is not a name; accepted"),
    ("sweep", {"experiment": "gone", "MLFLOW_TRACKING_URI": "sqlite:///{stores}/mlflow.db"}, "'gone' is deleted in"),
    ("sweep", {"MLFLOW_RUN_ID": "0123"}, "/here/mlflow.db: unset MLFLOW_RUN_ID"),
    (
        "sweep",
        {"MLFLOW_RUN_ID": "0123", "MLFLOW_TRACKING_URI": "sqlite:///{stores}/mlflow.db"},
        "MLFLOW_RUN_ID='0123' is not a run of sqlite:///",
    ),
    (
        "sweep",
        {"MLFLOW_RUN_ID": "0123", "MLFLOW_TRACKING_URI": "sqlite:///mine.db"},
        "/here/mine.db: unset MLFLOW_RUN_ID; or, since `mlflow run` starts a command in the project's folder, give "
        "MLFLOW_TRACKING_URI='sqlite:///mine.db' with its whole path",
    ),
    ("sweep", {"MLFLOW_EXPERIMENT_ID": "7"}, "MLFLOW_EXPERIMENT_ID='7' is not an experiment of sqlite:////"),
    (
        "sweep",
        {"MLFLOW_EXPERIMENT_ID": "x", "MLFLOW_TRACKING_URI": "sqlite:///{stores}/mlflow.db"},
        "MLFLOW_EXPERIMENT_ID='x' is not an experiment of sqlite:////",
    ),
    (
        "sweep",
        {"MLFLOW_EXPERIMENT_ID": "0", "MLFLOW_EXPERIMENT_NAME": "other"},
        "is the experiment 'Default', but MLFLOW_EXPERIMENT_NAME='other': unset one of the two",
    ),
    ("sweep", {"MLFLOW_HTTP_REQUEST_TIMEOUT": "soon"}, "MLFLOW_HTTP_REQUEST_TIMEOUT='soon' cannot be read ("),
    ("sweep", {"MLFLOW_ENABLE_ASYNC_LOGGING": "maybe"}, "MLFLOW_ENABLE_ASYNC_LOGGING='maybe' cannot be read ("),
    ("sweep", {"MLFLOW_TRACKING_URI": "sqlite:///:memory:"}, "cannot be written (it names no file"),
    ("sweep", {"MLFLOW_TRACKING_URI": "sqlite:////no/su%63h/mlflow.db"}, "(there is no folder /no/such)"),
    ("sweep", {"MLFLOW_TRACKING_URI": "sqlite:///{notes}"}, "is another program's (its tables: notes) and is left as"),
    ("sweep", {"MLFLOW_TRACKING_URI": "sqlite:///{newer}"}, "is of a newer MLflow than 3.17.2 (version abcdef123456): set"),
    ("sweep", {"MLFLOW_TRACKING_URI": "sqlite:///{older}"}, "make a copy of it, then run: mlflow db upgrade sqlite:////"),
    ("sweep", {"MLFLOW_TRACKING_URI": "sqlite:///{file}/mlflow.db"}, "cannot be written"),
    ("sweep", {"MLFLOW_TRACKING_URI": "sqlite:////no/such/folder/mlflow.db"}, "(there is no folder /no/such/folder)"),
    ("sweep", {"MLFLOW_TRACKING_URI": "sqlite:////proc/mlflow.db"}, "cannot be written"),
    ("sweep", {"MLFLOW_TRACKING_URI": "sqlite:///{stores}"}, "cannot be written (unable to open database file)"),
    ("sweep", {"MLFLOW_TRACKING_URI": "sqlite:///{text}"}, "cannot be written (file is not a database)"),
    ("sweep", {"MLFLOW_TRACKING_URI": "sqlite://"}, "cannot be written (it names no file"),
    ("sweep", {"MLFLOW_TRACKING_URI": "sqlite:mlflow.db"}, "cannot be written (it names no file"),
    ("sweep", {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db?mode=ro"}, "or options that are not read"),
    ("sweep", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "the tracking store http://127.0.0.1:9 does not work"),
    ("sweep", {"MLFLOW_TRACKING_URI": "http://[::1"}, "the tracking store http://[::1 does not work"),
    ("sweep", {"MLFLOW_TRACKING_URI": "http://me:word@127.0.0.1:9"}, "store http://me:***@127.0.0.1:9 does not work"),
    ("sweep", {"MLFLOW_TRACKING_URI": "mlruns"}, "/here/mlruns does not work (The filesystem tracking"),
    ("sweep", {"MLFLOW_TRACKING_URI": "nonsense://x"}, "the tracking store nonsense://x does not work"),
    ("sweep", {"MLFLOW_TRACKING_URI": "mysql+no://x"}, "the tracking store mysql+no://x does not work"),
    ("sweep", {"MLFLOW_TRACKING_URI": "mssql+pymssql://me:word@h/d"}, "me:***@h/d does not work (No module named"),
    # the other commands
    ("notebook", {"seed": "0-3"}, "seed='0-3': the notebook's experiments take one seed; for several, use the sweep"),
    ("notebook", {"epochs": "0"}, "epochs='0' is out of range; accepted: a whole number from 1 to 1000000, or auto"),
    ("notebook", {"epochs": "9999999"}, "epochs='9999999' is out of range"),
    ("notebook", {"reg": "l1"}, "No such option"),
    ("notebook", {"dataset": "folder", "data_dir": "nowhere"}, "/here/nowhere/train"),
    ("notebook_loop", {"name": "l7"}, "name='l7' is unknown; accepted: none, l1, l2, weight_decay"),
    ("notebook_loop", {"workers": "-1"}, "workers='-1' is out of range; accepted: a whole number from 0 to 64"),
    ("notebook_loop", {"train_size": "9999"}, "train_size=9999 is out of range"),
    ("report", {"MLFLOW_TRACKING_URI": ""}, "/here/mlflow.db; accepted: none, the store"),
    ("report", {"experiment": "nowhere"}, "there is no experiment 'nowhere' in sqlite:///"),
    ("report", {"experiment": "Default"}, "holds no trial (0 runs in all); train some"),
    ("report", {"experiment": "gone"}, "experiment='gone' is deleted in"),
    ("report", {"experiment": "Default", "sweep": "0123456789ab"}, "holds no trial that meets what was asked for"),
    ("report", {"sweep": "a%' or 1=1"}, "is not an id; accepted: the 12 letters and digits"),
    ("report", {"recipe": "0 1"}, "recipe='0 1' is not an id; accepted"),
    ("report", {"experiment": "Default", "filter": "nonsense"}, "filter='nonsense' is not an MLflow filter ("),
    ("report", {"experiment": "Default", "filter": "params.lam = '1' or 1"}, "is not an MLflow filter ("),
    ("report", {"out": "{file}"}, "is a file; give a folder"),
    ("report", {"out": ""}, "out='' is not a folder; accepted: a path"),
    ("report", {"out": "~nobody-here"}, "out='~nobody-here' is not a folder; accepted: a path"),
    ("report", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "the tracking store http://127.0.0.1:9 does not work"),
    ("check", ["check"], "Missing argument 'REG'"),
    ("check", ["check", "l3"], "reg='l3' is unknown; accepted: none, cutout, decoupled_wd"),
    ("check", ["check", "no_such_module:Reg"], "reg='no_such_module:Reg' cannot be imported"),
    ("check", ["check", "tests.networks:Tiny"], "is not a subclass of regbench.regularizers.Regularizer; make it one"),
    ("check", ["chek", "l1"], "No such command 'chek'"),
]  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory, empty_database) -> dict[str, Path]:
    """Broken data sets and stores by name, and `modules` with broken code in them."""
    root = tmp_path_factory.mktemp("places")
    folders = (
        "no_image",
        "cut_jpeg",
        "bomb",
        "dangling",
        "pipe",
        "empty_class",
        "no_class",
        "other_classes",
        "few",
    )
    for name in folders:
        for part in ("train", "test"):
            for label in ("a", "b"):
                (root / name / part / label).mkdir(parents=True)
                Image.new("RGB", (32, 32)).save(root / name / part / label / "1.png")
    (root / "no_image" / "train" / "b" / "1.png").write_bytes(b"rubbish")
    jpeg = root / "cut_jpeg" / "train" / "a" / "2.jpg"
    Image.effect_noise((64, 64), 50).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[: jpeg.stat().st_size // 2])
    bomb = root / "bomb" / "train" / "a" / "2.png"
    Image.new("1", (20_000, 10_000)).save(bomb)
    (root / "dangling" / "train" / "a" / "2.png").symlink_to("nowhere")
    os.mkfifo(root / "pipe" / "train" / "a" / "2.png")
    (root / "empty_class" / "train" / "b" / "1.png").unlink()
    shutil.rmtree(root / "no_class" / "train")
    (root / "no_class" / "train").mkdir()
    shutil.rmtree(root / "other_classes" / "test" / "b")
    (root / "archive").mkdir()
    (root / "archive" / CIFAR10.filename).write_bytes(gzip.compress(b"x" * 1000)[:-10])
    (root / "idx").mkdir()
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            content = gzip.compress(b"\0\0\x08\x03" + b"x" * 1000)[:-10]
            (root / "idx" / f"{part}-{kind}-ubyte.gz").write_bytes(content)
    (root / "file").write_text("")
    (root / "text").write_text("not a database, but long enough to be looked at by SQLite as one\n" * 20)
    (root / "stores").mkdir()
    shutil.copy(empty_database, root / "stores" / "mlflow.db")
    with closing(sqlite3.connect(root / "notes")) as other:
        other.execute("CREATE TABLE notes (text)")
    for name, version in (("newer", "abcdef123456"), ("older", "bd07f7e963c5")):
        shutil.copy(empty_database, root / name)
        with closing(sqlite3.connect(root / name)) as other, other:
            other.execute("UPDATE alembic_version SET version_num = ?", (version,))
    client = MlflowClient(f"sqlite:///{root / 'stores' / 'mlflow.db'}")
    client.delete_experiment(client.create_experiment("gone"))
    modules = {
        "broken_syntax": "def (",
        "needs_missing": "import no_such_package",
        "broken_base": "class Odd(BaseException): pass\nraise Odd('never')",
        "broken_exit": "import sys; sys.exit(3)",
        "broken_lines": "raise RuntimeError('one line\\nand another')",
        "broken_nets": (
            "import sys\nimport torch\nfrom torch import nn\n"
            "class Fixed(nn.Module):\n    def forward(self, x): return x.flatten(1)[:, :10]\n"
            "class Nan(Fixed):\n    def __init__(self): super().__init__(); self.w = nn.Parameter(torch.ones(1))\n"
            "    def forward(self, x): return super().forward(x) * self.w / 0\n"
            "class Exits(Nan):\n    def forward(self, x): sys.exit(3)\n"
        ),
    }
    (root / "modules").mkdir()
    for name, code in modules.items():
        (root / "modules" / f"{name}.py").write_text(code)
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, places) -> Path:
    """A cache that holds the data which is not broken, as after any earlier command."""
    place = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGBENCH_CACHE", str(place))
        data.load("digits", place)
        data.load("folder", places["few"])
    return place


def files(*roots: Path) -> dict[Path, int]:
    """Everything below some folders, with the sizes of files."""
    found = [path for root in roots for path in root.rglob("*") if "__pycache__" not in path.parts]
    return {path: path.lstat().st_size for path in found}


def refused(command: str, given, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys) -> tuple[int, str]:
    """Run a command in this process; return its exit code and what it wrote to standard error."""
    main, base = COMMANDS[command]
    options = base | given if isinstance(given, dict) else {}
    filled = {name: value.format(**places) for name, value in options.items()}
    arguments = [f"--{name}={value}" for name, value in filled.items() if not name.isupper()]
    for name, value in filled.items():
        if name.isupper():
            monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(places["modules"])
    with pytest.raises(SystemExit) as stop:
        exit_code.run(main, arguments if isinstance(given, dict) else given)
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "given", "message"),
    CASES,
    ids=[f"{command}-{'-'.join(map(ascii, given.items() if isinstance(given, dict) else given))[:60]}"
         for command, given, _ in CASES],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_and_nothing_is_made(
    command, given, message, places, cache, elsewhere, monkeypatch, capsys
):
    monkeypatch.setenv("REGBENCH_CACHE", str(cache))
    roots = (elsewhere, cache, places["file"].parent)
    before = files(*roots)
    code, told = refused(command, given, places, monkeypatch, capsys)
    assert code == 2, told
    assert told.startswith("error: ")
    assert told.count("\n") == 1, told
    assert message in told
    assert WAY_OUT.search(told), told
    assert "word@" not in told  # a password
    assert files(*roots) == before


@pytest.mark.parametrize(
    ("module", "options", "told"),
    [
        ("sweep", GOOD | {"lam": "nan"}, "error: lam=nan is not a finite number above 0"),
        ("notebook", {"seed": "0-3"}, "error: seed='0-3': the notebook's experiments take one seed"),
        ("report", {"experiment": "none"}, "error: there is no experiment 'none' in sqlite:////"),
        ("check", {}, "error: Missing argument 'REG'"),
    ],
)
def test_as_a_user_sees_it(command, module, options, told, elsewhere):
    done = command(module, **options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1
    assert list(elsewhere.iterdir()) == []


def test_help_is_no_mistake(capsys):
    with pytest.raises(SystemExit) as stop:
        exit_code.run(sweep.main, ["--help"])
    assert stop.value.code == 0
    assert "--train_size" in capsys.readouterr().out
