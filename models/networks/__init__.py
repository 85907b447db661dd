"""The graph networks of the field, each on the graph of Almanac with its clock: `NETWORKS` names them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

NETWORKS = {  # name → module: class; imported when asked for, because PyG takes seconds
    "gcn": "gcn:GCN",
    "gat": "gat:GAT",
    "graphsage": "sage:MeanSAGE",
    "graphsage_max": "sage:MaxSAGE",
    "graphsage_lstm": "sage:SequenceSAGE",
    "edge_sage": "edge_sage:EdgeSAGE",
    "lightgcn_ahead": "light:LightGCN",
    "lightgcn_alpha": "light:LearnedLightGCN",
    "ngcf": "ngcf:NGCF",
    "pinsage": "pinsage:PinSage",
    "rgcn": "relational:RelationalGCN",
    "han": "han:HAN",
    "hgt": "hgt:HGT",
    "kgat": "kgat:KGAT",
    "kgat_transe": "kgat:TransEKGAT",
    "kgat_distmult": "kgat:DistMultKGAT",
    "kgat_rotate": "kgat:RotatEKGAT",
    "social_gcn": "social:SocialGCN",
    "ggnn": "gated:GatedGraph",
    "mpnn": "gated:MessagePassingNetwork",
    "tgn": "tgn:TGN",
    "content_gnn": "hybrid:WithContent",
    "sequence_gnn": "hybrid:WithSequence",
}


def network(name: str) -> Any:
    """The class of that name: (view, dimension, layers, dropout) → a module that maps (view, float32 [V, D]) to [V, D'].

    A class may say by RECIPE what its training differs in from `models.networks.training.Recipe`; its modules may have
    `begin(view, inputs)`, called once before training, and `beside(view, inputs)`, a loss to be added to that of the lists.
    """
    module, kind = NETWORKS[name].split(":")
    return getattr(import_module(f"models.networks.{module}"), kind)
