import pytest

from regbench import __main__, regularizers
from regbench.commands import exit_code
from regbench.errors import UserError
from regbench.regularizers import L1
from regbench.regularizers.contract import rules
from tests import plugins

# as people write them
FINE = (
    *("Log", "WithoutLams", "ByAutograd", "InNumpy", "Reweighted", "Chains", "LargeOnly", "Box", "Nuclear", "Flattens"),
    *("AsArray", "AsTensor", "AsRange", "SumOfSizes", "NuclearPenalty", "Orthogonal", "MatricesAlone", "Projects"),
    *("BothSteps", "Erasing"),
)


@pytest.mark.parametrize("name", [*regularizers.REGISTRY, *(f"tests.plugins:{name}" for name in FINE)])
def test_what_works_keeps_every_rule(name):
    told = list(rules.check(regularizers.find(name)))
    assert len(told) == len(rules.RULES)
    assert not [rule for rule, broken in told if broken]


def test_a_rule_is_named_where_python_leaves_docstrings_out(monkeypatch):
    """As python -OO does."""
    monkeypatch.setattr(rules.adds, "__doc__", None)
    assert "adds" in [rule for rule, _ in rules.check(L1)]
    monkeypatch.setattr(rules.leaves_lam_zero, "__doc__", None)
    assert "leaves lam zero" in [rule for rule, _ in rules.check(L1)]


@pytest.mark.parametrize(
    ("cls", "rule", "how"),
    [
        (plugins.NeedsArgument, rules.is_callable, "alpha"),
        (plugins.WrongHook, rules.is_callable, "after_step is to be called as after_step(p, lam, tau)"),
        (plugins.Raises, rules.runs, "add_grad on a matrix in torch.float32: ValueError: never"),
        (plugins.MatricesOnly, rules.runs, "on a convolution in torch.float32: ValueError"),
        (plugins.BadLams, rules.has_grid, "has -1 in its lams"),
        (plugins.BelowText, rules.has_grid, "has lam_upper_bound='1'"),
        (plugins.Abstract, rules.is_callable, "it is made as Abstract(): give arguments a default"),
        (plugins.KeywordOnly, rules.is_callable, "add_grad is to be called as add_grad(p, g, lam): too many"),
        (plugins.OldName, rules.is_callable, "hidden is called dense_input now; rename it"),
        (plugins.HookOfInstance, rules.is_callable, "dense_input is given to the instance"),
        (plugins.Asynchronous, rules.is_callable, "add_grad is async or yields"),
        (plugins.Yields, rules.is_callable, "add_grad is async or yields"),
        (plugins.FloatOfLam, rules.runs, "lam is [K, 1, ...] and p is [K, ...], of K trials"),
        (plugins.ItemOfLam, rules.runs, "or write one_by_one = True in the class"),
        (plugins.ConditionOnLam, rules.runs, "or write one_by_one = True in the class"),
        (plugins.WithoutEnabling, rules.runs, "in `with torch.enable_grad():`"),
        (plugins.DoubleOnly, rules.runs, "make tensors of p's type"),
        (plugins.Exits, rules.runs, "add_grad on a matrix in torch.float32: SystemExit: 3"),
        (plugins.NotInPlace, rules.acts_in_place, "after_step does not change p; write p.add_(...)"),
        (plugins.AssignsData, rules.acts_in_place, "after_step does not change p; write p.add_(...)"),
        (plugins.SetsStorage, rules.acts_in_place, "after_step does not change p; write p.add_(...)"),
        (plugins.AssignsGradient, rules.acts_in_place, "add_grad does not change g; write g.add_(...)"),
        (plugins.Returns, rules.acts_in_place, "after_step returns a Tensor on a matrix, which is not used"),
        (plugins.ReturnsData, rules.acts_in_place, "add_grad returns a Tensor on a matrix, which is not used"),
        (
            plugins.PenaltyAlone,
            rules.acts_in_place,
            "value is only for the log; write penalty(self, w) in its place",
        ),
        (plugins.UnsummedPenalty, rules.runs, "penalty returns one number: sum it up, as in w.abs().sum()"),
        (plugins.ConstantPenalty, rules.acts_in_place, "penalty changes nothing"),
        (plugins.NormOfRoot, rules.is_finite, "g has nan on a matrix of zeros; keep it finite, as by clamp"),
        (plugins.OtherGradient, rules.matches_value, "where value rises by"),
        (plugins.Misspelt, rules.acts_in_place, "it has add_gradient; hooks are penalty, add_grad, before_step"),
        (plugins.ChangesLam, rules.acts_in_place, "lam is changed"),
        (plugins.Cholesky, rules.keeps_rows_apart, "a row of nan on a matrix gives _LinAlgError"),
        (plugins.Cholesky, rules.keeps_rows_apart, "torch.nan_to_num, or write one_by_one = True"),
        (plugins.SetsSeed, rules.is_deterministic, "must not draw random numbers, nor set the seed"),
        (
            plugins.WrongSign,
            rules.matches_value,
            "add_grad adds 0.001 at a weight of -1.13584, where value rises by -",
        ),
        (plugins.WrongSignInNumpy, rules.matches_value, "where value rises by -0.001 per 1; correct one of them"),
        (plugins.HalfOfIt, rules.matches_value, "add_grad adds -0.0005 at a weight"),
        (plugins.WrongBeyondOne, rules.matches_value, "where value rises by 0 per 1"),
        (plugins.ViewsOfParts, rules.is_elementwise_if_it_says_so, "view size is not compatible"),
        (plugins.ChangesWeightsEarly, rules.acts_in_place, "add_grad changes p"),
        (plugins.Overwrites, rules.adds, "it is not g plus"),
        (plugins.SumOfAll, rules.has_shapes, "value returns shape [] on a matrix [3, 6, 5], expected [3]"),
        (plugins.OneLoss, rules.has_shapes, "add_loss returns shape [] on a matrix [3, 6, 5], expected [3]"),
        (plugins.TooMany, rules.has_shares, "it is 1.5 when 0% of the epochs are over"),
        (plugins.TooManyEarly, rules.has_shares, "it is 1.2 when 0% of the epochs are over"),
        (
            plugins.ColumnLoss,
            rules.has_shapes,
            "add_loss returns shape [3, 1, 1] on a matrix [3, 6, 5], expected [3]",
        ),
        (plugins.OtherShape, rules.has_shapes, "dense_input returns [3, 6] for [3, 6, 5]"),
        (plugins.ChangesHidden, rules.acts_in_place, "dense_input, augment or add_loss changes what it is given"),
        (plugins.ImagesAlone, rules.has_shapes, "augment returns a Tensor, expected images and targets"),
        (plugins.OtherTargets, rules.has_shapes, "augment returns [[3, 4, 3, 32, 32], [3, 4]], expected images and"),
        (plugins.BrightensInPlace, rules.acts_in_place, "dense_input, augment or add_loss changes what it is given"),
        (plugins.LeavesImages, rules.acts_in_place, "augment changes nothing; leave it out"),
        (plugins.FlipsAtZero, rules.leaves_lam_zero, "images is changed on a matrix"),
        (plugins.MixesTrials, rules.keeps_rows_apart, "images of the other rows changes with a row of 0.5"),
        (plugins.DrawsImages, rules.is_deterministic, "must not draw random numbers"),
        (plugins.CutOff, rules.is_differentiable, "dense_input on a matrix is cut off from its input"),
        (plugins.DropsAtZero, rules.leaves_lam_zero, "dense_input is changed on a matrix"),
        (plugins.SmoothsAtZero, rules.leaves_lam_zero, "the loss is"),
        (plugins.PrunesAtZero, rules.leaves_lam_zero, "the target_sparsity is 0.5"),
        (plugins.MixesLogits, rules.keeps_rows_apart, "loss of the other rows changes with a row of 0.5"),
        (plugins.MovesAtZero, rules.leaves_lam_zero, "p is changed on a matrix; multiply what is done with lam"),
        (plugins.NanAtZero, rules.leaves_lam_zero, "p becomes NaN on a matrix of zeros"),
        (plugins.Mixes, rules.keeps_rows_apart, "g of the other rows changes with a row of 0.5"),
        (plugins.Counts, rules.is_same_alone, "g differs"),
        (plugins.NotFiniteAtZero, rules.is_finite, "g has inf on a matrix of zeros; keep it finite, as by clamp"),
        (plugins.Root, rules.leaves_lam_zero, "g becomes NaN on a matrix, as 0 times infinity does; keep it finite"),
        (plugins.LogScores, rules.is_finite, "importance has nan on a matrix; keep it finite"),
        (plugins.WritesGrad, rules.runs, "weights have no .grad here: the gradient is g"),
        (plugins.RowsOfColumns, rules.runs, "and return where p.ndim is not what a hook is for"),
        (plugins.KeepsMask, rules.is_deterministic, "dense_input differs from call to call on a matrix"),
        (plugins.SmallOnly, rules.is_elementwise_if_it_says_so, "p differs on a large matrix if it comes in two"),
        (plugins.Draws, rules.is_deterministic, "must not draw random numbers"),
        (plugins.RemembersScores, rules.is_deterministic, "importance differs from call to call"),
        (plugins.NormValue, rules.is_elementwise_if_it_says_so, "value is not the sum of those of two parts"),
        (plugins.KeepsItsFirstTau, rules.is_deterministic, "p differs from call to call on a matrix"),
        (plugins.WithoutAfterStep, rules.acts_in_place, "before_step is for optimizer=adam alone"),
        (plugins.ReturnsEarly, rules.acts_in_place, "before_step returns a Tensor on a matrix, which is not used"),
        (plugins.ShrinksAtZero, rules.leaves_lam_zero, "p before Adam's step is changed on a matrix"),
        (plugins.MixesEarly, rules.keeps_rows_apart, "p before Adam's step of the other rows changes"),
        (
            plugins.AlphaOfTau,
            rules.takes_a_tau_per_weight,
            "on a matrix; calculate with tau as with lam, as in tau * lam",
        ),
        (plugins.MeanTau, rules.takes_a_tau_per_weight, "p differs on a matrix from what each weight's own tau gives"),
        (plugins.NoProjection, rules.takes_a_tau_per_weight, "p goes by tau on a matrix; leave projection out"),
        (plugins.SaysElementwise, rules.is_elementwise_if_it_says_so, "leave elementwise out"),
    ],
)
def test_each_rule_is_found_broken(cls, rule, how):
    broken = dict(rules.check(cls))
    assert how in broken[rule.__doc__.rstrip(".")]


@pytest.mark.parametrize(
    ("cls", "first"),
    [
        (plugins.DrawsHidden, rules.is_deterministic),
        (plugins.Averages, rules.is_deterministic),
        (plugins.LogScores, rules.is_finite),
        (plugins.LargestLam, rules.keeps_rows_apart),
    ],
)
def test_the_cause_is_told_before_what_comes_of_it(cls, first):
    """A sweep tells only the first."""
    broken = [rule for rule, how in rules.check(cls) if how]
    assert len(broken) > 1 and broken[0] == first.__doc__.rstrip(".")


def test_a_hook_is_run_where_it_will_be():
    """No GPU is needed: what is on the meta device goes with nothing that is on the CPU."""
    rules.require("tests.plugins:Log", "meta")
    rules.require("tests.plugins:Elsewhere")
    with pytest.raises(UserError, match=r"Elsewhere' does not run on device=meta: add_grad on a matrix .*where p is"):
        rules.require("tests.plugins:Elsewhere", "meta")


def test_every_rule_has_words():
    assert all(rule.__doc__ and rule.__doc__.endswith(".") and "\n" not in rule.__doc__ for rule in rules.RULES)


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("tests.plugins:SumOfSizes", 0, "speed   autograd takes "),
        ("tests.plugins:Log", 0, "ok      One trial alone"),
        ("group_lasso", 0, "ok      A row whose lam is 0"),
        ("tests.plugins:MovesAtZero", 1, "broken  A row whose lam is 0 is left bitwise as it is, beside rows that"),
        ("tests.plugins:Raises", 1, "broken  The hooks run on matrices"),
    ],
)
def test_the_command_tells_a_line_per_rule(name, code, told, capsys):
    with pytest.raises(SystemExit) as stop:
        exit_code.run(__main__.main, ["check", name])
    lines = capsys.readouterr().out.splitlines()
    assert stop.value.code == code
    assert any(line.startswith(told) for line in lines)
    told = [line for line in lines if line.startswith(("ok      ", "broken  "))]
    assert any(line.startswith("broken") for line in told) == bool(code)
    assert len(told) == len(rules.RULES) or code
    assert all(line.startswith("speed   ") for line in lines if line not in told)


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
        exit_code.run(__main__.main, arguments)
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in told
    assert told.count("\n") == 1


def test_a_plugin_is_refused_by_the_rule_that_it_breaks():
    rules.require("tests.plugins:Log")
    with pytest.raises(UserError, match=r"Mixes' breaks a rule of regularizers: A row does not notice .* row of 0.5"):
        rules.require("tests.plugins:Mixes")


def test_what_adam_asks_for_is_asked_for_with_adam_alone():
    rules.require("tests.plugins:AlphaOfTau")
    with pytest.raises(
        UserError, match=r"AlphaOfTau' breaks a rule of regularizers: Where it goes with optimizer=adam"
    ):
        rules.require("tests.plugins:AlphaOfTau", rules=rules.WITH_ADAM)
    rules.require("tests.plugins:Projects", rules=rules.WITH_ADAM)


def test_what_raises_while_it_is_made_is_told(monkeypatch):
    class Fails(L1):
        def __init__(self):
            raise OSError("no such file")

    assert [how for _, how in rules.check(Fails)] == ["", "OSError: no such file"]
