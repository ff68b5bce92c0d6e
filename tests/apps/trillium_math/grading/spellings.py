"""Answers that are the same, and answers that are not: the reference, then another one."""

_SAME = r"""
1/2                             | 0.5
\frac{1}{2}                     | \dfrac12
2/4                             | 1/2
-\frac{1}{2}                    | \frac{1}{-2}
0.25                            | \frac14
1,234                           | 1234
1{,}234.5                       | 1234.50
10,\!080                        | 10080
7 3/4                           | 31/4
-2\frac12                       | -2.5
1e3                             | 1000
1.2E6                           | 1,200,000
1.2 \times 10^6                 | 1200000
1.2 million                     | 1.2\times10^{6}
3 dozen                         | 36
0.1\overline{6}                 | 1/6
\sqrt{2}                        | 1.41421356
2/3                             | 0.66666667
-2/3                            | -0.66666666
1/3                             | 0.33333333
\pi                             | 3.14159265358979
50\%                            | 0.5
50%                             | 50
50                              | 50%
90^\circ                        | 90
90                              | 90 degrees
10\text{ cm}                    | 10
25                              | 25\text{ cm}^2
25 cm^2                         | 25 square centimeters
18                              | 18 red apples
60 km/h                         | 60
\$18                            | 18 dollars
3 hours                         | 3 hrs
\sqrt{8}                        | 2\sqrt2
\frac{\sqrt3}{3}                | 1/sqrt(3)
2\pi                            | 2*pi
\sqrt{3+2\sqrt{2}}              | 1+\sqrt2
\sqrt[3]{-8}                    | -2
e^2                             | exp(2)
\log_2 8                        | 3
\log 100                        | 2
\binom{5}{2}                    | 10
4!                              | 24
x^2-1                           | (x+1)(x-1)
x**2 + 2*x                      | x(x+2)
\sin^2 x+\cos^2 x               | 1
|x|                             | \sqrt{x^2}
(1+i)^2                         | 2i
\frac{x}{y}                     | x/y
x=11                            | 11
11                              | x = 11
y=2x+1                          | 2x+1
f(x)=2x                         | 2x
y=2x+1                          | 2y - 4x = 2
10                              | 3+7 = 10
5 < x                           | x > 5
2x < 4                          | x < 2
x \ge 5                         | [5, \infty)
-3 < x \le 5                    | (-3, 5]
[0, 1)                          | 0 \le x < 1
x \in [1,2]                     | [1, 2]
(1,2)                           | (1, \frac{4}{2})
(1,2)                           | 1, 2
1, 2                            | 2, 1
1, 2                            | x=2 or x=1
x=1, y=2                        | (1, 2)
\{1,2,3\}                       | \{3,1,2,2\}
\{1,2\}                         | 2 and 1
1 \pm \sqrt2                    | 1-\sqrt2, 1+\sqrt2
(1,2), (3,4)                    | (3,4), (1,2)
(-\infty,0)\cup(1,\infty)       | (1,\infty) \cup (-\infty,0)
\mathbb{R}                      | (-\infty, \infty)
\emptyset                       | \{\}
\begin{pmatrix}1&2\\3&4\end{pmatrix}   | \begin{bmatrix} 1 & 2 \\ 3 & 8/2 \end{bmatrix}
\begin{pmatrix}1&2\\3&4\end{pmatrix}   | [[1, 2], [3, 4]]
\text{even}                     | Even
\text{(A)}                      | A
(C)                             | C.
1101_2                          | 1101
\boxed{5}                       | \boxed{5.0}
9**9**9                         | 9**9**9
\left(\frac12,3\right)          | (0.5, 3)
12:30                           | 12:30
3:2                             | 3/2
18                              | = 18
\sqrt2                          | \sqrt2 \approx 1.414
\text{DNE}                      | dne
\infty                          | inf
3                               | 3 \text{ meters per second}
(x, y) = (1, 2)                 | (1, 2)
(1, 2)                          | (a, b) = (1, 2)
A = \{1, 2\}                    | 2, 1
(0,1) U [2,3]                   | [2,3] \cup (0,1)
x < 1 \text{ or } x > 2         | (-\infty,1)\cup(2,\infty)
x = -2, 1                       | 1, -2
a_n = 2n+1                      | 1 + 2n
3/4 cups                        | 0.75
\left(\begin{array}{c}1\\2\end{array}\right) | \begin{pmatrix}1\\2\end{pmatrix}
\ln 2 + \ln 3                   | \ln 6
\frac{1}{2} \text{ hour}        | 0.5
e^{i\pi}                        | -1
(1,2)                           | x=1, y=2
(1,2)                           | y=2, x=1
(3,4)                           | b = 4 and a = 3
(1,2)                           | (y=2, x=1)
(1,2,3)                         | z=3, y=2, x=1
y=2, x=1                        | (1,2)
x=1, y=2                        | y=2, x=1
x=1, y=2                        | 1, 2
1, 2                            | y=2, x=1
x_2=1, x_1=2                    | (2,1)
1, 2                            | x_1=2, x_2=1
x_1=1, x_2=2                    | \{2,1\}
\{1,2\}                         | x=2, y=1
0.3                             | 3 tenths
3/100                           | 3 \text{ hundredths}
70                              | 7 tens
2000000                         | 2 millions
5 thousand                      | 5 thousands
36                              | 3 dozens
12                              | 12 fifth graders
15                              | 15 secs
50                              | 50%
12.5                            | 12.5%
50.0                            | 50 percent
0.5\%                           | 0.005
x > a                           | (a, \infty)
x > a                           | a < x
x \le a                         | (-\infty, a]
a < x < b                       | (a, b)
x > 2a                          | x \in (2a, \infty)
x > 2a                          | x/2 > a
10 m                            | 10
10 m                            | 10 meters
10                              | 10 m
3 L                             | 3 liters
3 L                             | 3 l
12 s                            | 12 \text{ seconds}
\frac{1}{2} h                   | 0.5 hours
10 m^2                          | 10 square meters
2 m                             | 2m
1.5 \times 10^{-3} g            | 0.0015
1500                            | 1.5 x 10^3
1.5X10^{-3}                     | 0.0015
7/4                             | 3.5/2
1.5/2                           | 3/4
2x_1                            | x_1\cdot 2
\frac{1}{2}x^2                  | x^2\frac{1}{2}
\frac14                         | \frac12\frac12
x^{5/2}                         | x^{2\frac12}
0                               | \arctan 1+\arctan 2+\arctan 3-\pi
e^{-150}(1+\sqrt2)              | e^{-150}\sqrt{3+2\sqrt2}
\$5                             | 5
5                               | \$5
$5                              | 5 dollars
£5                              | 5 pounds
€5                              | 5 euros
$5$                             | 5 cents
\$5 per hour                    | 5
90^\circ                        | 90^\circ C
90^\circ C                      | 90 degrees Celsius
90^{\circ}\text{C}              | 90
30^\circ, 60^\circ              | 60, 30
"""

_DIFFERENT = r"""
5                               | 6
5                               | -5
12                              | 12.0001
100000                          | 100001
1/3                             | 0.3333
1/3                             | 0.33333334
1/3                             | -0.33333333
\sqrt2                          | 1.414
\sqrt2                          | 1.41421357
0.3333                          | 1/3
3.14                            | \pi
.5                              | 50
0.5                             | 50%
50%                             | 0.5%
50%                             | 5000
32349                           | 32, 349
1234                            | 12,34
12                              | 1 2
73/4                            | 7 3/4
(0,9)                           | [0,9)
[1,2]                           | (1,2)
x>5                             | x<5
x>5                             | x \ge 5
x>5                             | y>5
(1,2)                           | (2,1)
\{1,2\}                         | (1,2)
1, 2                            | 1, 2, 3
1, 2, 3                         | 1, 2
\{1,2\}                         | \{1,2,3\}
7=11a+c                         | 11a+c
x=5                             | y=5
x=5                             | x=6
x+y=3                           | x+y=4
x^2-1                           | x^2+1
x                               | X
|x|                             | x
1-1/e                           | 1+1/e
2i                              | -2i
\log 2                          | \ln 2
12:00                           | 1:00
2:4                             | 1:2
\sqrt2                          | \approx 1.414
10 cm                           | 10 m
10\text{ cm}                    | 10\text{ cm}^2
18                              | 18 thousand
18                              | 18 squared
\text{Monday}                   | Tuesday
A                               | B
no                              | on
1101_2                          | 1101_3
\infty                          | -\infty
\begin{pmatrix}1&2\end{pmatrix} | \begin{pmatrix}1\\2\end{pmatrix}
\begin{vmatrix}1&2\\3&4\end{vmatrix} | \begin{pmatrix}1&2\\3&4\end{pmatrix}
9**9**9                         | 9**9**8
(x, y) = (1, 2)                 | (2, 1)
x < 1 \text{ or } x > 2         | (-\infty,1]\cup(2,\infty)
(0,1) \cup [2,3]                | (0,1), [2,3)
1/0                             | 0/0
5                               | \boxed{5
5                               | 1, 2, 3, 4, 5, 6
(1,2)                           | y=1, x=2
(3,4)                           | b = 3, a = 4
(1,2)                           | (y=1, x=2)
(1,2)                           | x_2=1, x_1=2
x=1, y=2                        | 2, 1
x=1, y=2                        | (2, 1)
x=1, y=2                        | \{1,2\}
x=1, y=2                        | x=2, y=1
a=3, b=4                        | 4 and 3
1, 2                            | x=2, y=1
[1,2]                           | x=1, y=2
x=1, y=2                        | 1, 2, 3
3                               | 3 tenths
3                               | 3 \text{ hundredths}
3                               | 3 fifths
1                               | 1 tenth
7                               | 7 tens
2                               | 2 millions
5                               | 5 thousands
3                               | 3 dozens
0.5                             | 0.5%
1/100                           | 1/100%
0.01                            | 0.01 percent
x                               | x%
x > a                           | (-\infty, a)
x > a                           | (-\infty, x)
x > a                           | a > x
x > a                           | y > a
x > x                           | (x, \infty)
a < x < b                       | a < y < b
10 m                            | 10 cm
10 m                            | 10 g
10 m                            | 11
10 m                            | 10%
10 m                            | 10 square meters
5 - 2 m                         | 3
10 x                            | 10
10m                             | 10
10 m                            | m
1500                            | 1.5 x 10^4
1.5/2                           | 1
2x                              | 2x_1
2x_1                            | 2x
3x                              | 3x_2
2n                              | 2n_5
19_5                            | 19
x^2\frac{1}{2}                  | x^{5/2}
\frac12\frac12                  | 2/5
e^{-150}                        | e^{-140}
0                               | e^{-200}
\pi                             | \pi+10^{-100}
\pi                             | \pi+e^{-200}
\$5                             | 5 cents
$5                              | 5 cents
\$5                             | €5
5 dollars                       | £5
90^\circ                        | 90 radians
90^\circ C                      | 90^\circ F
90^\circ\text{C}                | 90 degrees Fahrenheit
6                               | 2 x 3
"""


def pairs(text):
    """Read a table: the reference, a bar between spaces, the other answer."""
    return [tuple(map(str.strip, line.rsplit(" | ", 1))) for line in text.strip().splitlines()]


SAME, DIFFERENT = pairs(_SAME), pairs(_DIFFERENT)
