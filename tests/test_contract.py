import pytest

from regbench import __main__, cli, contract, regularizers
from regbench.errors import UserError
from regbench.regularizers import L1
from tests import plugins

# as people write them
FINE = (
    *("Log", "WithoutLams", "ByAutograd", "InNumpy", "Reweighted", "Chains", "LargeOnly", "Box", "Nuclear", "Flattens"),
    *("AsArray", "AsTensor", "AsRange"),
)


@pytest.mark.parametrize("name", [*regularizers.REGISTRY, *(f"tests.plugins:{name}" for name in FINE)])
def test_what_works_keeps_every_rule(name):
    told = list(contract.check(regularizers.find(name)))
    assert len(told) == len(contract.RULES)
    assert not [rule for rule, broken in told if broken]


def test_a_rule_is_named_where_python_leaves_docstrings_out(monkeypatch):
    """As python -OO does."""
    monkeypatch.setattr(contract.adds, "__doc__", None)
    assert "adds" in [rule for rule, _ in contract.check(L1)]
    monkeypatch.setattr(contract.leaves_lam_zero, "__doc__", None)
    assert "leaves lam zero" in [rule for rule, _ in contract.check(L1)]


@pytest.mark.parametrize(
    ("cls", "rule", "how"),
    [
        (plugins.NeedsArgument, contract.is_callable, "alpha"),
        (plugins.WrongHook, contract.is_callable, "after_step is to be called as after_step(p, lam, tau)"),
        (plugins.Raises, contract.runs, "add_grad on a matrix in torch.float32: ValueError: never"),
        (plugins.MatricesOnly, contract.runs, "on a convolution in torch.float32: ValueError"),
        (plugins.BadLams, contract.has_grid, "has -1 in its lams"),
        (plugins.BelowText, contract.has_grid, "has below='1'"),
        (plugins.Abstract, contract.is_callable, "it is made as Abstract(): give arguments a default"),
        (plugins.KeywordOnly, contract.is_callable, "add_grad is to be called as add_grad(p, g, lam): too many"),
        (plugins.HookOfInstance, contract.is_callable, "hidden is given to the instance"),
        (plugins.Asynchronous, contract.is_callable, "add_grad is async or yields"),
        (plugins.Yields, contract.is_callable, "add_grad is async or yields"),
        (plugins.FloatOfLam, contract.runs, "lam is [K, 1, ...] and p is [K, ...], of K trials"),
        (plugins.ItemOfLam, contract.runs, "or write one_by_one = True in the class"),
        (plugins.ConditionOnLam, contract.runs, "or write one_by_one = True in the class"),
        (plugins.WithoutEnabling, contract.runs, "in `with torch.enable_grad():`"),
        (plugins.DoubleOnly, contract.runs, "make tensors of p's type"),
        (plugins.Exits, contract.runs, "add_grad on a matrix in torch.float32: SystemExit: 3"),
        (plugins.NotInPlace, contract.acts_in_place, "after_step does not change p; write p.add_(...)"),
        (plugins.AssignsData, contract.acts_in_place, "after_step does not change p; write p.add_(...)"),
        (plugins.SetsStorage, contract.acts_in_place, "after_step does not change p; write p.add_(...)"),
        (plugins.AssignsGradient, contract.acts_in_place, "add_grad does not change g; write g.add_(...)"),
        (plugins.Returns, contract.acts_in_place, "after_step returns a Tensor on a matrix, which is not used"),
        (plugins.ReturnsData, contract.acts_in_place, "add_grad returns a Tensor on a matrix, which is not used"),
        (
            plugins.PenaltyAlone,
            contract.acts_in_place,
            "value is only for the log; write add_grad(self, p, g, lam) too",
        ),
        (plugins.Misspelt, contract.acts_in_place, "it has add_gradient; hooks are add_grad, after_step"),
        (plugins.ChangesLam, contract.acts_in_place, "lam is changed"),
        (plugins.Cholesky, contract.keeps_rows_apart, "a row of nan on a matrix gives _LinAlgError"),
        (plugins.Cholesky, contract.keeps_rows_apart, "torch.nan_to_num, or write one_by_one = True"),
        (plugins.SetsSeed, contract.is_deterministic, "must not draw random numbers, nor set the seed"),
        (
            plugins.WrongSign,
            contract.matches_value,
            "add_grad adds 0.001 at a weight of -1.13584, where value rises by -",
        ),
        (plugins.WrongSignInNumpy, contract.matches_value, "where value rises by -0.001 per 1; correct one of them"),
        (plugins.HalfOfIt, contract.matches_value, "add_grad adds -0.0005 at a weight"),
        (plugins.WrongBeyondOne, contract.matches_value, "where value rises by 0 per 1"),
        (plugins.ViewsOfParts, contract.is_elementwise_if_it_says_so, "view size is not compatible"),
        (plugins.ChangesWeightsEarly, contract.acts_in_place, "add_grad changes p"),
        (plugins.Overwrites, contract.adds, "it is not g plus"),
        (plugins.SumOfAll, contract.has_shapes, "value returns shape [] on a matrix [3, 6, 5], expected [3]"),
        (plugins.OneLoss, contract.has_shapes, "add_loss returns shape [] on a matrix [3, 6, 5], expected [3]"),
        (plugins.TooMany, contract.has_shares, "it is 1.5 when 3% of the epochs are over"),
        (plugins.TooManyEarly, contract.has_shares, "it is 1.2 when 3% of the epochs are over"),
        (
            plugins.ColumnLoss,
            contract.has_shapes,
            "add_loss returns shape [3, 1, 1] on a matrix [3, 6, 5], expected [3]",
        ),
        (plugins.OtherShape, contract.has_shapes, "hidden returns [3, 6] for [3, 6, 5]"),
        (plugins.ChangesHidden, contract.acts_in_place, "hidden or add_loss changes what it is given"),
        (plugins.CutOff, contract.is_differentiable, "hidden on a matrix is cut off from its input"),
        (plugins.DropsAtZero, contract.leaves_lam_zero, "hidden is changed on a matrix"),
        (plugins.SmoothsAtZero, contract.leaves_lam_zero, "the loss is"),
        (plugins.PrunesAtZero, contract.leaves_lam_zero, "the share is 0.5"),
        (plugins.MixesLogits, contract.keeps_rows_apart, "loss of the other rows changes with a row of 0.5"),
        (plugins.MovesAtZero, contract.leaves_lam_zero, "p is changed on a matrix; multiply what is done with lam"),
        (plugins.NanAtZero, contract.leaves_lam_zero, "p becomes NaN on a matrix of zeros"),
        (plugins.Mixes, contract.keeps_rows_apart, "g of the other rows changes with a row of 0.5"),
        (plugins.Counts, contract.is_same_alone, "g differs"),
        (plugins.NotFiniteAtZero, contract.is_finite, "g has inf on a matrix of zeros; keep it finite, as by clamp"),
        (plugins.Root, contract.leaves_lam_zero, "g becomes NaN on a matrix, as 0 times infinity does; keep it finite"),
        (plugins.LogScores, contract.is_finite, "score has nan on a matrix; keep it finite"),
        (plugins.WritesGrad, contract.runs, "weights have no .grad here: the gradient is g"),
        (plugins.RowsOfColumns, contract.runs, "and return where p.ndim is not what a hook is for"),
        (plugins.KeepsMask, contract.is_deterministic, "hidden differs from call to call on a matrix"),
        (plugins.SmallOnly, contract.is_elementwise_if_it_says_so, "p differs on a large matrix if it comes in two"),
        (plugins.Draws, contract.is_deterministic, "must not draw random numbers"),
        (plugins.RemembersScores, contract.is_deterministic, "score differs from call to call"),
        (plugins.NormValue, contract.is_elementwise_if_it_says_so, "value is not the sum of those of two parts"),
        (plugins.SaysElementwise, contract.is_elementwise_if_it_says_so, "leave elementwise out"),
    ],
)
def test_each_rule_is_found_broken(cls, rule, how):
    broken = dict(contract.check(cls))
    assert how in broken[rule.__doc__.rstrip(".")]


@pytest.mark.parametrize(
    ("cls", "first"),
    [
        (plugins.DrawsHidden, contract.is_deterministic),
        (plugins.Averages, contract.is_deterministic),
        (plugins.LogScores, contract.is_finite),
        (plugins.LargestLam, contract.keeps_rows_apart),
    ],
)
def test_the_cause_is_told_before_what_comes_of_it(cls, first):
    """A sweep tells only the first."""
    broken = [rule for rule, how in contract.check(cls) if how]
    assert len(broken) > 1 and broken[0] == first.__doc__.rstrip(".")


def test_a_hook_is_run_where_it_will_be():
    """No GPU is needed: what is on the meta device goes with nothing that is on the CPU."""
    contract.require("tests.plugins:Log", "meta")
    contract.require("tests.plugins:Elsewhere")
    with pytest.raises(UserError, match=r"Elsewhere' does not run on device=meta: add_grad on a matrix .*where p is"):
        contract.require("tests.plugins:Elsewhere", "meta")


def test_every_rule_has_words():
    assert all(rule.__doc__ and rule.__doc__.endswith(".") and "\n" not in rule.__doc__ for rule in contract.RULES)


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("tests.plugins:Log", 0, "ok      One trial alone"),
        ("group_lasso", 0, "ok      A row whose lam is 0"),
        ("tests.plugins:MovesAtZero", 1, "broken  A row whose lam is 0 is left bitwise as it is, beside rows that"),
        ("tests.plugins:Raises", 1, "broken  The hooks run on matrices"),
    ],
)
def test_the_command_tells_a_line_per_rule(name, code, told, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(__main__.main, ["check", name])
    lines = capsys.readouterr().out.splitlines()
    assert stop.value.code == code
    assert any(line.startswith(told) for line in lines)
    assert all(line.startswith(("ok      ", "broken  ")) for line in lines)
    assert any(line.startswith("broken") for line in lines) == bool(code)
    assert len(lines) == len(contract.RULES) or code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "l3"], "reg='l3' is unknown"),
        (["check", "no_such_module:X"], "reg='no_such_module:X' cannot be imported (No module named"),
        (["check", "tests.plugins:not_a_class"], "is not a subclass of regbench.regularizers.Regularizer"),
        (["check"], "Missing argument"),
        (["chekc", "l1"], "No such command"),
        ([], "Missing command"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(__main__.main, arguments)
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in told
    assert told.count("\n") == 1


def test_a_plugin_is_refused_by_the_rule_that_it_breaks():
    contract.require("tests.plugins:Log")
    with pytest.raises(UserError, match=r"Mixes' breaks a rule of regularizers: A row does not notice .* row of 0.5"):
        contract.require("tests.plugins:Mixes")


def test_what_raises_while_it_is_made_is_told(monkeypatch):
    class Fails(L1):
        def __init__(self):
            raise OSError("no such file")

    assert [how for _, how in contract.check(Fails)] == ["", "OSError: no such file"]
