"""One training step in a client's hands, and what must hold of it."""
import torch


def step(model, loss_of, lr=1e-3):
    """A step of gradient descent on `loss_of()`: gradients reach the first layer after the filters, and the loss falls.

    Random choices of the client, such as dropout and sampled proposals, are the same before and after.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(parameters.values(), lr=lr)
    torch.manual_seed(0)
    loss = loss_of()
    loss.backward()
    wrong = [name for name, p in parameters.items() if p.grad is None or not p.grad.isfinite().all()]
    assert not wrong, f'no finite gradient: {wrong}'
    first = [p for name, p in parameters.items() if 'norm.orders.' in name]
    assert first
    assert all(p.grad.any() for p in first)
    optimizer.step()
    torch.manual_seed(0)
    with torch.no_grad():
        assert loss_of() < loss
    optimizer.zero_grad()


def check_filters_learn(model, loss_of):
    """The step, and that it moved the scattering filters: call it with a model whose filters are learnable."""
    filters = {name: p for name, p in model.named_parameters() if 'scattering.' in name}
    assert filters
    before = {name: p.detach().clone() for name, p in filters.items()}
    step(model, loss_of)
    assert all(not torch.equal(p, before[name]) for name, p in filters.items())
