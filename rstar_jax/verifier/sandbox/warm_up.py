"""What a cell does once so that no fork has to: lazy imports, caches, and bytecode that Python rewrites as it warms up.

What is settled here is not written again, page by page, in every fork; a first `solve` takes five times the second one.
"""

# Run by every cell, many times over.
LIBRARY = "def f(n):\n    return n + 1\nx = [f(i) for i in range(5)]\nprint(sum(x), f'{x}')\nimport math\n1 / 0"
LIBRARY_RUNS = 32

_NUMPY = """
import numpy as np
a = np.array([[2.0, 1.0], [1.0, 3.0]])
np.linalg.solve(a, np.ones(2)), np.linalg.inv(a) @ a, np.linalg.eigvals(a), np.roots([1, -3, 2])
str(np.arange(6).reshape(2, 3).sum(axis=0)), np.allclose(a, a), np.sqrt(np.linspace(0, 1, 5)).mean()
"""
_SYMPY = """
from sympy import *
from sympy.abc import n
x, y, z = symbols('x y z')
t = symbols('t', positive=True)
str(expand((x + 1)**3)), str(factor(x**3 - 1)), str(simplify(sin(x)**2 + cos(x)**2)), str(cancel((x**2 - 1)/(x - 1)))
solve(x**2 - 3*x + 2, x), solve(x**2 - 3*x + 1), solve(Eq(x**4 - 5*x**2 + 4, 0), x), solve(x**3 - 2*x + 1, x)
solve([x + y - 5, x - y - 1], [x, y]), solve([x*y - 6, x + y - 5], [x, y]), solve(sqrt(x) - 2, x), solve(2**x - 8, x)
solve(Eq(sqrt(3*x + 5)/sqrt(6*x + 5), sqrt(5)/3), x), expand(x**2*(1 - 2*x)**6).coeff(x, 5), solve(x**2 - 5*x + 1, x)
solveset(x**2 - 4, x, S.Reals), solve(x**2 < 4, x), reduce_inequalities([x - 1 > 0]), nsolve(cos(x) - x, x, 1)
diff(x**2*sin(x), x).subs(x, 1).evalf(), integrate(x*exp(x), x), integrate(x**2, (x, 0, 3)), limit(sin(x)/x, x, 0)
series(exp(x), x, 0, 4), summation(n**2, (n, 1, 10)), summation(1/n**2, (n, 1, oo)), product(n, (n, 1, 5))
apart(1/(x**2 - 1)), together(1/x + 1/y), collect(x*y + x, x), trigsimp(2*sin(x)*cos(x)), radsimp(1/(sqrt(2) + 1))
Poly(x**2 + 2*x + 1, x).all_coeffs(), roots(x**2 - 2, x), gcd(x**2 - 1, x - 1), resultant(x**2 - 1, x - 2, x)
m = Matrix([[2, 1], [1, 3]])
m.det(), m.inv(), m.eigenvals(), m * Matrix([1, 2]), m.rref(), str(m)
gcd(12, 18), lcm(4, 6), factorint(360), isprime(97), divisors(28), totient(36), binomial(5, 2), factorial(6), prime(10)
nsimplify(0.75), Rational(3, 4) + sqrt(2), N(pi, 10), sqrt(50), (1 + I)**3, Abs(-3), floor(Rational(7, 2)), log(8, 2)
latex(x**2/2), str(sympify('x**2 + 1')), pretty(x), Interval(0, 1), FiniteSet(1, 2), Sum(n, (n, 1, 3)).doit()
simplify((t**2)**Rational(1, 2)), expand_trig(sin(2*x)), minimal_polynomial(sqrt(2), x)
Point(0, 0).distance(Point(3, 4))
"""
_SCIPY = """
from scipy import integrate, optimize, stats
optimize.brentq(lambda x: x * x - 2, 0, 2), optimize.minimize(lambda x: (x[0] - 1) ** 2, [0.0]).x
optimize.fsolve(lambda x: x * x - 2, 1.0), optimize.linprog([1, 1], A_ub=[[-1, -1]], b_ub=[-1]).fun
integrate.quad(lambda x: x * x, 0, 1), stats.norm.cdf(0.5), stats.binom.pmf(2, 5, 0.5)
"""
HEAVY = {"numpy": _NUMPY, "sympy": _SYMPY, "scipy.stats": _SCIPY}


def run(name: str) -> None:
    """Runs what warms a heavy module up, if there is something for it."""
    exec(compile(HEAVY.get(name, ""), "<warm up>", "exec"), {"__name__": "__main__"})
