"""From labels to a map: which model suits them, a classifier that remembers where its vectors come from, and its maps.

`labels` reads tables, `folds` cuts them into parts that lie apart, `vectors` computes what models make of them.
Names load on first use, from the root of the package; scikit-learn (the extra `ml`) is imported inside functions only.
"""
