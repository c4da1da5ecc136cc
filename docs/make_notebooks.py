"""Make docs/regbench.ipynb and docs/regbench.ja.ipynb, and the badges of the READMEs that open them in Colab.

`python docs/make_notebooks.py`, after a change of the cells here or of REPOSITORY. Both notebooks have the same code, so
that they are the same lesson. They are stored without outputs.
"""

import re
from pathlib import Path
from string import Template

import nbformat
from nbformat import NotebookNode

HERE = Path(__file__).parent
# where the project is published; with OWNER it is not yet, and a badge leads to Colab alone, where a file can be uploaded
REPOSITORY = "https://github.com/OWNER/regbench"
COLAB = "https://colab.research.google.com"
BADGE = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]"
READMES = {"en": HERE.parent / "README.md", "ja": HERE.parent / "README.ja.md"}
# the language of the report in each
LANGUAGES = {"en": "en", "ja": "ja"}
NAMES = {"en": "regbench.ipynb", "ja": "regbench.ja.ipynb"}

Cell = tuple[str, dict[str, str]]
CELLS: list[Cell] = []


def text(en: str, ja: str) -> None:
    """Add a cell of text."""
    # a browser would show a line's end within a Japanese sentence as a space
    joined = re.sub(r"(?<=[^\x00-\x7f])\n *(?=[^\x00-\x7f])", "", ja.strip())
    CELLS.append(("markdown", {"en": en.strip(), "ja": joined}))


def code(source: str, **words: tuple[str, str]) -> None:
    """Add a cell of code, in which $word is a comment in English or Japanese."""
    both = {
        "en": {name: one for name, (one, _) in words.items()},
        "ja": {name: one for name, (_, one) in words.items()},
    }
    filled = Template(source.strip()).substitute
    CELLS.append((
        "code",
        {name: filled(both[name], lang=LANGUAGES[name], repository=REPOSITORY) for name in NAMES},
    ))  # fmt: skip


text(
    """
# How does weight regularization change what a network recognizes?

The lecture's four experiments - none, L1, L2 and weight decay - and then the question that one training cannot
answer: is the difference more than chance? Run the cells from top to bottom; it takes a few minutes, on a GPU or
without one (on Colab: *Runtime > Run all*). Every training is tracked in MLflow, in `mlflow.db` in the current
folder, and one that is finished is not done again: after an interruption, run the cell again.
""",
    """
# 重みの正則化は認識性能をどう変えるか

講義の 4 つの実験（正則化なし、L1、L2、重み減衰）を行い、そのあとで、1 回の学習では答えられない問い、つまり「その差は
偶然より大きいのか」を調べます。セルを上から順に実行してください。GPU があってもなくても数分で終わります（Colab では
「ランタイム > すべてのセルを実行」）。学習はすべて MLflow（現在のフォルダの `mlflow.db`）に記録されます。終わった学習
は繰り返されないので、途中で止まったときは同じセルをもう一度実行してください。
""",
)
text("## Install", "## インストール")
code(
    """
# $change
REPOSITORY = "git+$repository"

import importlib.util

if importlib.util.find_spec("regbench") is None:
    %pip install --quiet {REPOSITORY}
""",
    change=(
        "CHANGE THIS: the address of your copy of regbench (not used where regbench is installed)",
        "ここを変更: regbench のリポジトリのアドレス（インストール済みなら使われません）",
    ),
)
text(
    """
## Settings

`digits` are 1,797 small images that need no download. With `cifar10` it is the lecture's own data (170 MB), of which
2,500 images are taken so that it does not take hours on a CPU; on a GPU take more.
""",
    """
## 設定

`digits` は 1,797 枚の小さな手書き数字画像で、ダウンロードは不要です。`cifar10` にすると講義と同じデータ（170 MB）にな
ります。CPU でも何時間もかからないよう 2,500 枚だけを使います。GPU があれば増やしてください。
""",
)
code(
    """
import os

import matplotlib.pyplot as plt
import torch

import regbench

DATASET = "digits"  # $other
TRAIN_SIZE = None if DATASET == "digits" else 2500  # $all
EPOCHS = 20
REGULARIZERS, LAMS, SEEDS, FRESH_SEEDS = ["l1", "l2"], [1e-4, 1e-3], "0-1", 12  # $sweep
common = {"dataset": DATASET, "train_size": TRAIN_SIZE}

if os.environ.get("REGBENCH_NOTEBOOK_FAST"):  # $fast
    EPOCHS, REGULARIZERS, SEEDS, FRESH_SEEDS = 1, ["l2"], "0", 2
    common |= {"train_size": 200, "jobs": 1}
""",
    other=("or cifar10", "または cifar10"),
    all=("None: all images", "None: すべての画像"),
    sweep=("of the sweep in two stages below", "下の 2 段階のスイープ用"),
    fast=("a test of this notebook", "このノートブックのテスト用"),
)
text(
    """
## The four experiments

With the lecture's network (two convolutions, three dense layers), learning rate and strengths.
`help(regbench.notebook)` lists the options.
""",
    """
## 4 つの実験

講義と同じネットワーク（畳み込み 2 層、全結合 3 層）、学習率、正則化の強さを使います。オプションは
`help(regbench.notebook)` で見られます。
""",
)
code("four = regbench.notebook(**common, epochs=EPOCHS)")
code(
    """
# $columns
four.trials[["regularizer", "lam", "fit/accuracy", "test/accuracy", "gap/accuracy", "sparsity/exact", "sparsity/abs_1e-3"]]
""",
    columns=(
        "fit: on the training images; gap: fit minus test; sparsity: the share of weights that are 0, or below 0.001",
        "fit: 訓練画像での精度、gap: fit とテストの差（汎化の差）、sparsity: 0 の、または絶対値 0.001 未満の重みの割合",
    ),
)
text(
    """
**Questions.** Which has the highest test accuracy? Which has the smallest gap, and is it the same one? What would you
have concluded from this table alone - and what would another seed have shown (`regbench.notebook(..., seed=1)`)?
""",
    """
**問い.** テスト精度が最も高いのはどれですか。訓練とテストの差（汎化の差）が最も小さいのはどれで、それは同じものです
か。この表だけから何を結論しますか。シードを変えたら（`regbench.notebook(..., seed=1)`）どうなるでしょうか。
""",
)
text(
    """
## What became of the weights

The bar plots of the output layer `l3`, as in the lecture: every bar is a weight. `regbench.load` gives the trained
network of a run, a `torch.nn.Module`.
""",
    """
## 重みはどうなったか

講義と同じ、出力層 `l3` の重みの棒グラフです（棒 1 本が重み 1 つ）。`regbench.load` は run の学習済みネットワークを
`torch.nn.Module` として返します。
""",
)
code(
    """
figure, axes = plt.subplots(1, 4, figsize=(16, 3), sharey=True, layout="constrained")
for axis, trial in zip(axes, four.trials.to_dict("records")):
    w = regbench.load(trial["run_id"]).l3.weight.detach().flatten()
    axis.vlines(range(len(w)), 0, w, linewidth=0.3)
    axis.set_title(f"{trial['regularizer']} lam={trial['lam']:g}")
    axis.set_xlabel("weight of l3")
axes[0].set_ylabel("value")
plt.show()
""",
)
text(
    """
**Questions.** L1 is said to make weights sparse. Are there exact zeros (`sparsity/exact`)? Why not, if the gradient
of the penalty is followed by SGD? Compare with `reg="l1_prox"`, which sets weights to zero by soft thresholding.
""",
    """
**問い.** L1 は重みを疎（スパース）にすると言われます。ちょうど 0 の重みはありますか（`sparsity/exact`）。ペナルティの
勾配を SGD でたどるだけだと、なぜ 0 にならないのでしょうか。ソフトしきい値で重みを 0 にする `reg="l1_prox"` と比べてみ
てください。
""",
)
text(
    """
## Is it more than chance? A sweep in two stages

The strength `lam` is chosen on validation images, on a few seeds; then the chosen one is compared with `none` on
fresh seeds that had no say in the choice, seed by seed. The test images are looked at once per training, and nothing
is chosen by them.
""",
    """
## 偶然より大きい差か: 2 段階のスイープ

まず少数のシードで、検証画像の精度によって強さ `lam` を選びます。次に、選択に関わっていない新しいシードで、選ばれた
`lam` と正則化なし（`none`）をシードごとに比べます。テスト画像は学習ごとに 1 回だけ使い、テスト精度で何かを選ぶことは
ありません。
""",
)
code(
    """
sweep = regbench.sweep(
    reg=REGULARIZERS, lam=LAMS, seeds=SEEDS, confirm=FRESH_SEEDS, epochs=max(1, EPOCHS // 2), **common
)
""",
)
code(
    """
# $columns
sweep.verdicts[["regularizer", "lam", "difference", "low", "high", "verdict"]]
""",
    columns=(
        "the mean difference of the test accuracies to none (0.01 is a point), the bounds of its interval, the verdict",
        "none とのテスト精度の差の平均（0.01 が 1 ポイント）、その信頼区間の下限と上限、判定",
    ),
)
code('sweep.report(lang="$lang")')
text(
    """
**Questions.** What does the report's first paragraph claim, and what does it not claim? How far do the seeds of
`none` alone lie apart, and how large is the difference between two rows of the first table above beside that? How
many seeds would it take to show a difference of 0.5 points?
""",
    """
**問い.** レポートの最初の段落は何を主張し、何を主張していませんか。`none` だけでもシードによって精度はどれだけばらつ
きますか。それと比べて、最初の表の行どうしの差は大きいですか。0.5 ポイントの差を示すには、シードがいくつ必要ですか。
""",
)
text(
    """
## Your own regularizer in ten lines

`penalty(w)` returns a number for each weight tensor; autograd takes its gradient, and `lam` multiplies both. It goes
into a file, since a training is recognized by its code: change the formula, run both cells again, and it is trained
anew.
""",
    """
## 自分の正則化を 10 行で

`penalty(w)` は重みテンソルごとに 1 つの数を返します。勾配は自動微分で計算され、`lam` が両方に掛けられます。学習はコー
ドによって識別されるので、ファイルに書きます。式を変えて 2 つのセルを実行し直すと、新しく学習されます。
""",
)
code(
    '''
%%writefile myreg.py
from regbench.regularizers import Regularizer


class Log(Regularizer):
    """lam * sum of 0.01 * log(1 + |w| / 0.01): pulls at small weights as L1 does, and lets large ones be."""

    lams = (1e-5, 1e-4, 1e-3)

    def penalty(self, w):
        return 0.01 * (w.abs() / 0.01).log1p().sum()
''',
)
code(
    """
mine = regbench.sweep(reg="myreg:Log", lam=LAMS, seeds=SEEDS, confirm=0, epochs=max(1, EPOCHS // 2), **common)
mine.trials.groupby(["regularizer", "lam"])[["val/accuracy", "test/accuracy", "sparsity/abs_1e-3"]].mean()
""",
)
text(
    """
**Questions.** `none` was not trained again: why may it be taken over from the sweep before? Replace the formula, for
instance by `w.abs().sqrt().sum()`: what goes wrong at zero, and how does `regbench.sweep` tell you?
""",
    """
**問い.** `none` は学習し直されませんでした。なぜ前のスイープの結果を使ってよいのでしょうか。式を、たとえば
`w.abs().sqrt().sum()` に変えてみてください。0 では何が起こり、`regbench.sweep` はそれをどう知らせますか。
""",
)
text(
    """
## Use a trained network

The one with the best validation accuracy, on a test image. `preprocess` takes the path of your own picture too.
""",
    """
## 学習済みネットワークを使う

検証精度が最も高いネットワークで、テスト画像を 1 枚分類します。`preprocess` には自分の画像ファイルのパスも渡せます。
""",
)
code(
    """
from pathlib import Path

from regbench import data

best = sweep.trials.sort_values("val/accuracy").iloc[-1]
net = regbench.load(best["run_id"])
picture = data.load(DATASET, Path(".data")).test_images[0]  # $path
with torch.no_grad():
    chances = net(net.preprocess(picture)).softmax(1)[0]
for place in chances.argsort(descending=True)[:3]:
    print(f"{net.classes[place]:>12} {chances[place]:.1%}")
plt.figure(figsize=(2, 2))
plt.imshow(picture.transpose(1, 2, 0))
plt.axis("off")
plt.show()
""",
    path=('or picture = "cat.png"', 'または picture = "cat.png"'),
)
text(
    """
## Where to go from here

* `mlflow ui --backend-store-uri sqlite:///mlflow.db` in a terminal shows every training: curves, weights, and the
  report as an artifact of the sweep's run. On Colab, download `mlflow.db` and `mlruns/` before the machine is gone.
* `help(regbench.sweep)` lists all options. Does the answer depend on the learning rate (`lr=[0.01, 0.03]`), on the
  number of images (`train_size`), on the optimizer (`optimizer="adam"`), on the network (`model="resnet8"`)?
""",
    """
## この先へ

* ターミナルで `mlflow ui --backend-store-uri sqlite:///mlflow.db` を実行すると、すべての学習（学習曲線、重み、レポー
  ト）が見られます。Colab では、マシンが消える前に `mlflow.db` と `mlruns/` をダウンロードしてください。
* すべてのオプションは `help(regbench.sweep)` で見られます。結論は学習率（`lr=[0.01, 0.03]`）、
  画像の枚数（`train_size`）、最適化手法（`optimizer="adam"`）、ネットワーク（`model="resnet8"`）によって変わるで
  しょうか。
""",
)


def notebook(language: str) -> NotebookNode:
    """Return the notebook in one of the languages."""
    makers = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    cells = [makers[kind](words[language], id=f"cell-{number:02}") for number, (kind, words) in enumerate(CELLS)]
    metadata = {
        "accelerator": "GPU",
        "colab": {"provenance": []},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def badge(language: str) -> str:
    """Return the line of a README that opens its notebook in Colab."""
    place = REPOSITORY.removeprefix("https://github.com/")
    address = f"{COLAB}/github/{place}/blob/main/docs/{NAMES[language]}"
    return f"{BADGE}({COLAB if place.startswith('OWNER/') else address})"


def with_badge(readme: str, language: str) -> str:
    """Return the text of a README with its badge as it should be."""
    return re.sub(rf"^{re.escape(BADGE)}.*$", badge(language), readme, flags=re.MULTILINE)


if __name__ == "__main__":
    for language, name in NAMES.items():
        nbformat.write(notebook(language), HERE / name)
        readme = READMES[language]
        readme.write_text(with_badge(readme.read_text(), language))
