"""The mathematics of wavelet scattering; nothing here knows of timm. A map:

`geometry`  sizes, paths and levels     `morlet`, `frame`        closed forms; Littlewood-Paley bounds
`filters`   what banks hand over        `banks`, `parametric`    one small class a kind of bank
`transform` the plain reference         `scales`                 the order of several scales' maps
`engine`    the entry, made fast        `torch2d`, `plot`        kymatio's interface; pictures
`loading`   state dicts, whole or not   `memory`                 what is kept between calls
`rotation`  averages over orientations  `plot_bank`              the picture of a bank
"""
