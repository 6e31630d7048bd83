"""numpy-only reader of the golden files: rebuilds weights and inputs from the rules and compares arrays.
Independent of torch and of any model code; may be copied into a test suite."""
import hashlib, json, math, os
import numpy as np

f32 = np.float32


def normal(name, shape):
    """float32 standard normals that depend only on the name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'little')
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(tuple(shape), dtype=np.float32)


def _a_log(x):
    return np.log(np.arange(1, x.shape[-1] + 1, dtype=np.float64)).astype(np.float32) + f32(0.05) * x


WEIGHT_RULES = {
    'fan_in': lambda x: x * f32(math.sqrt(1.0 / math.prod(x.shape[1:]))),
    'stacked_fan_in': lambda x: x * f32(math.sqrt(1.0 / x.shape[-1])),
    'bias': lambda x: f32(0.05) * x,
    'norm_weight': lambda x: f32(1.0) + f32(0.1) * x,
    'res_norm_weight': lambda x: f32(0.2) + f32(0.02) * x,
    'prelu_weight': lambda x: f32(0.25) + f32(0.05) * x,
    'running_mean': lambda x: f32(0.1) * x,
    'running_var': lambda x: f32(0.5) + (x * x) * f32(0.1),
    'a_log': _a_log,
    'dt_bias': lambda x: f32(-4.0) + f32(0.5) * x,
    'ones_d': lambda x: f32(1.0) + f32(0.1) * x,
    'gamma': lambda x: f32(0.5) + f32(0.1) * x,
    'theta_weight': lambda x: f32(0.01) * x,
    'theta_bias': lambda x: np.array([1, 0, 0, 0, 1, 0], np.float32) + f32(0.02) * x,
}


def weight(name, shape, rule):
    if rule == 'zero_int':
        return np.zeros(tuple(shape), np.int64)
    return WEIGHT_RULES[rule](normal(name, shape)).astype(np.float32)


def image(name, shape):
    b, c, h, w = shape
    coarse = normal(name + ':coarse', (b, c, h // 16, w // 16))
    return f32(0.7) * coarse.repeat(16, axis=2).repeat(16, axis=3) + f32(0.5) * normal(name + ':fine', shape)


def waves01(name, shape):
    b, c, h, w = shape
    p = normal(name, (b, c, 6, 4)).astype(np.float64)
    X, Y = (np.arange(w) / w)[None, :], (np.arange(h) / h)[:, None]
    x = np.zeros(shape, np.float64)
    for k in range(6):
        a, fx, fy, ph = (p[:, :, k, j][:, :, None, None] for j in range(4))
        x += 0.3 * a * np.sin(2 * np.pi * (4 * fx * X + 4 * fy * Y) + np.pi * ph)
    return np.clip(0.5 + 0.25 * x, 0, 1).astype(np.float32)


class Golden:
    def __init__(self, folder):
        def j(n):
            with open(os.path.join(folder, n)) as file:
                return json.load(file)

        self.manifest, self.index, self.train = j('manifest.json'), j('arrays.json'), j('train.json')
        self.npz = np.load(os.path.join(folder, 'golden.npz'))

    def weights(self, case=None):
        """dict name -> array in torch layout; case=None is the full model, else a stand-alone module."""
        es = self.manifest['params'] if case is None else self.manifest['case_params'][case]['params']
        out = {}
        for e in es:
            w = weight(e['name'], e['shape'], e['rule'])
            assert abs(w.astype(np.float64).sum() - e['check_sum']) <= 1e-6 * (1 + abs(e['check_sum'])), e['name']
            out[e['name']] = w
        return out

    def expect(self, name):
        return self.npz[name]

    def sample(self, name, full):
        """Reduce a full array (in the stored layout) the way the golden array was reduced."""
        i = self.index[name]
        full = np.asarray(full)
        assert list(full.shape) == i['shape'], (name, full.shape, i['shape'])
        return full if i['stored'] == 'full' else full.reshape(-1)[::i['flat_stride']]

    def rel_l2(self, name, full):
        a, b = self.expect(name).astype(np.float64), self.sample(name, full).astype(np.float64)
        n = math.sqrt((a * a).sum())
        return math.sqrt(((a - b) ** 2).sum()) / (n or 1.0)

    def grad_error(self, case, grads):
        """Worst relative error of the per-parameter gradient norm and of the random projection.
        grads: dict name -> array in torch layout (None where no gradient)."""
        rows = []
        for n, v in self.train[case]['params'].items():
            if v is None or v.get('negligible'):
                continue
            g = np.asarray(grads[n], np.float64)
            norm = math.sqrt((g * g).sum())
            dot = (g * normal('graddot:' + n, g.shape).astype(np.float64)).sum()
            rows.append((max(abs(norm - v['norm']), abs(dot - v['dot'])) / v['norm'], n))
        return max(rows)


if __name__ == '__main__':
    here = os.path.dirname(os.path.abspath(__file__))
    total = 0
    for m in ('fer_yolo_mamba', 'fermam', 'emonext'):
        g = Golden(os.path.join(here, m))
        n = len(g.weights())
        for c in g.manifest['case_params']:
            n += len(g.weights(c))
        assert set(g.npz.files) == set(g.index), set(g.npz.files) ^ set(g.index)
        for k, i in g.index.items():
            a = g.npz[k]
            size = math.prod(i['shape'])
            assert a.size == (size if i['stored'] == 'full' else -(-size // i['flat_stride'])), k
            assert a.dtype.kind != 'f' or np.isfinite(a).all(), k
        im = {'fer_yolo_mamba': (image, 'input:fer_yolo_mamba', (2, 3, 320, 320)), 'fermam': (image, 'input:fermam', (2, 3, 224, 224)),
              'emonext': (waves01, 'input:emonext', (2, 3, 224, 224))}[m]
        assert g.rel_l2('full/in', im[0](*im[1:])) == 0.0
        sz = sum(os.path.getsize(os.path.join(here, m, f)) for f in os.listdir(os.path.join(here, m)))
        total += sz
        print(m, 'tensors checked', n, 'arrays', len(g.index), 'bytes', sz)
    print('total bytes', total)
