-- The minute bars of the frames first … last by the rule, on a day without rows from QMT's history.
SELECT * EXCEPT gap FROM bars_1m_live(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')})
